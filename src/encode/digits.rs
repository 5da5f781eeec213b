//! Numbers, without the formatting of the standard library, which costs more than all the rest of a
//! line.

/// Appends the number's last digits, with zeros before them: so many in all.
pub(super) fn put_number(number: u32, width: u32, out: &mut Vec<u8>) {
    for place in (0..width).rev() {
        let digit = u8::try_from(number / 10_u32.pow(place) % 10).expect("it is one digit");
        out.push(b'0' + digit);
    }
}

/// Appends the number.
pub(super) fn put_decimal(number: u64, out: &mut Vec<u8>) {
    // As many as the largest has.
    let mut digits = [0; 20];
    let (mut at, mut rest) = (digits.len(), number);
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).expect("it is one digit");
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_its_digits() {
        for number in [0, 7, 10, 999, 1000, u64::MAX] {
            let mut out = Vec::new();
            put_decimal(number, &mut out);
            assert_eq!(out, number.to_string().into_bytes());
        }
        let mut out = Vec::new();
        put_number(42, 4, &mut out);
        assert_eq!(out, b"0042");
    }
}
