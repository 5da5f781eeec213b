//! Compression of what is sent.

use std::borrow::Cow;
use std::io::{self, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::header::{CONTENT_ENCODING, HeaderMap, HeaderValue};
use serde::Deserialize;

use crate::sink::DeliveryError;

/// A body of so many bytes takes long enough to hold up what else runs on a thread.
const LONG: usize = 64 << 10;

/// `compress`: how the body is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compress {
    /// As it is.
    None,
    /// As gzip, which nearly everybody understands.
    #[default]
    Gzip,
    /// As Zstandard, which is smaller at less effort.
    Zstd,
}

impl Compress {
    /// The body as it is sent. What is compressed is not copied before.
    pub fn apply(self, body: Cow<'_, [u8]>) -> io::Result<Vec<u8>> {
        match self {
            Self::None => Ok(body.into_owned()),
            Self::Gzip => {
                let room = Vec::with_capacity(body.len() / 4);
                // Four times as fast as the usual level, and hardly larger for lines so alike.
                let mut encoder = GzEncoder::new(room, Compression::new(1));
                encoder.write_all(&body)?;
                encoder.finish()
            }
            Self::Zstd => zstd::bulk::compress(&body, 1),
        }
    }

    /// Says so in the headers.
    pub fn announce(self, headers: &mut HeaderMap) {
        let coding = match self {
            Self::None => return,
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        };
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
}

/// Does work on a body of `len` bytes where it holds up nobody.
///
/// # Errors
/// [`DeliveryError::Retry`] when the work fails: nothing was sent.
pub async fn offload<T: Send + 'static>(
    len: usize,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, DeliveryError> {
    if len <= LONG {
        return work().map_err(DeliveryError::passing);
    }
    let done = tokio::task::spawn_blocking(work).await.map_err(DeliveryError::passing)?;
    done.map_err(DeliveryError::passing)
}
