//! The syslog sink: what it is tested against, and what it delivers to real receivers.

/// What the simulator takes and refuses, and what its faults do.
mod simulator;

/// What the sink makes of whatever a receiver does.
mod once;

/// What of a batch is settled, and what is counted.
mod counted;

/// The receiver configs and sinks that the page shows.
mod docs;

/// What is missing when receivers break streams again and again.
mod streams;

/// Who is no receiver, and who comes after another.
mod others;

/// Whom it trusts over TLS, and what it tells of a mistake.
mod secured;

/// Real receivers write what they are sent.
mod receivers;

/// They have every event once, byte for byte.
mod real;

/// And they have it whatever befalls them.
mod endurance;

/// A value of an event that some program or other takes for its own; `n` tells one from another.
pub fn hostile(n: i64) -> String {
    let texts = [
        "a line\nand \"another\"\r\n",
        "\0 nothing, \u{1b}[31mred\u{1b}[0m, \u{7f} and \u{8}",
        "] [siemferry@32473 uid=\"forged\"] \\] \\",
        "separators: \u{2028} \u{2029} \u{85} \u{b} \u{c} \u{a0}",
        "\u{202e}sdrawkcab\u{202c} \u{feff} \u{200b}",
        "Grüße, 漢字, 🦀, e\u{301}",
        "<165>1 2026-01-02T03:04:05Z - - - - - 12 <34>",
        " spaces at both ends ",
        "%s %n %timestamp% $MSG ${MSG} $(echo) `id` {{x}}",
    ];
    let index = usize::try_from(n).unwrap() % (texts.len() + 1);
    texts.get(index).map_or_else(|| "long ".repeat(2000), |text| (*text).to_owned())
}
