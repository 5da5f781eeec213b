//! How large a batch may be: as configured, or less while the destination takes less.

/// After so many batches in a row that were accepted, more is tried again.
const CALM: u32 = 100;

/// The most bytes of a batch.
#[derive(Debug)]
pub(super) struct Size {
    configured: usize,
    now: usize,
    calm: u32,
}

impl Size {
    /// As configured.
    pub fn new(configured: u64) -> Self {
        let configured = usize::try_from(configured).unwrap_or(usize::MAX);
        Self { configured, now: configured, calm: 0 }
    }

    /// At most so many bytes.
    pub fn most(&self) -> usize {
        self.now
    }

    /// A batch of so many bytes was too large: it would only be refused again.
    pub fn refused(&mut self, bytes: usize) {
        self.now = self.now.min(bytes / 2);
        self.calm = 0;
    }

    /// A batch was accepted. A limit may be gone, such as that of a proxy that was passed through for
    /// an hour: without this, batches stayed as small for as long as the daemon runs.
    pub fn accepted(&mut self) {
        self.calm += 1;
        if self.calm >= CALM {
            self.now = self.now.max(1).saturating_mul(2).min(self.configured);
            self.calm = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_gone_is_forgotten_step_by_step() {
        let mut size = Size::new(1000);
        (0..40).for_each(|_| size.refused(size.most()));
        assert_eq!(size.most(), 0);

        let mut batches = 0;
        while size.most() < 1000 {
            size.accepted();
            batches += 1;
        }

        assert_eq!(batches, 10 * CALM);
    }

    #[test]
    fn a_limit_that_stays_costs_one_refusal_in_a_hundred_batches() {
        let (mut size, mut refusals) = (Size::new(1000), 0);

        for _ in 0..1000 {
            if size.most() > 600 {
                refusals += 1;
                size.refused(size.most());
            } else {
                size.accepted();
            }
        }

        assert!(refusals <= 10, "{refusals}");
    }
}
