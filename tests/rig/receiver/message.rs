//! What a strict receiver takes for a message.

use super::Framing;

/// Why it is refused, if it is.
pub fn judge(message: &[u8], framing: Framing, most: usize) -> Result<(), String> {
    if message.is_empty() {
        return Err("an empty message".to_owned());
    }
    if message.len() > most {
        return Err(format!("a message of {} bytes", message.len()));
    }
    let text = std::str::from_utf8(message).map_err(|err| format!("a message that is {err}"))?;
    let is_line_end =
        |letter: char| letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}');
    match text.chars().find(|letter| is_line_end(*letter)) {
        Some(letter) if framing == Framing::Newline => Err(format!("{letter:?} in a message")),
        _ => Ok(()),
    }
}

/// Whether an octet count, or the end of a line, was left around a message without frames.
pub fn judge_unframed(message: &[u8]) -> Result<(), String> {
    let digits = message.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits > 0 && message[digits..].starts_with(b" <") {
        return Err("an octet count before a message without frames".to_owned());
    }
    if message.ends_with(b"\n") {
        return Err("an end of line behind a message without frames".to_owned());
    }
    Ok(())
}
