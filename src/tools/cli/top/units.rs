//! Numbers in few columns.

/// In six columns at most: as it is below 100000, then in thousands, millions and so on.
pub(super) fn short(number: f64) -> String {
    if !number.is_finite() {
        return "-".to_owned();
    }
    scaled(number, 99_999.5, 1000.0, ["", "k", "M", "G", "T", "P", "E"])
}

/// Bytes in five columns: K is 1024.
pub(super) fn bytes(number: f64) -> String {
    if !number.is_finite() {
        return "-".to_owned();
    }
    scaled(number, 999.5, 1024.0, ["", "K", "M", "G", "T", "P", "E"])
}

/// The first unit in which the number is below `limit`, or below 1000 once it is not the plain one.
fn scaled(number: f64, limit: f64, step: f64, units: [&str; 7]) -> String {
    if number.abs() < limit {
        return format!("{number:.0}");
    }
    let (mut value, mut unit) = (number, 0);
    while value.abs() >= 999.5 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    if value.abs() >= 1e4 {
        // Beyond all units.
        return format!("{value:.0e}{}", units[unit]);
    }
    let places = if value.abs() < 9.95 { 1 } else { 0 };
    format!("{value:.places$}{}", units[unit])
}

/// A rate in six columns: with a digit behind the point where it is small.
pub(super) fn rate(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 9.95 {
        format!("{per_second:.1}")
    } else {
        short(per_second)
    }
}

/// A difference with its sign, in six columns.
pub(super) fn signed(number: i128) -> String {
    let sign = if number > 0 { "+" } else { "" };
    let text = short(number as f64);
    if text.len() + sign.len() > 6 || number.unsigned_abs() > 9999 {
        return format!(
            "{sign}{}",
            scaled(number as f64, 9999.5, 1000.0, ["", "k", "M", "G", "T", "P", "E"])
        );
    }
    format!("{sign}{text}")
}

/// Seconds as a duration of three digits.
pub(super) fn duration(seconds: f64) -> String {
    let units = [
        (1e-6, 1e9, "ns"),
        (1e-3, 1e6, "µs"),
        (1.0, 1e3, "ms"),
        (f64::INFINITY, 1.0, "s"),
    ];
    let (_, factor, unit) = units
        .into_iter()
        .find(|(below, _, _)| seconds < below * 0.9995)
        .unwrap_or((0.0, 1.0, "s"));
    let value = seconds * factor;
    let places = match value {
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.places$} {unit}")
}

/// How long ago something was, in five columns.
pub(super) fn age(seconds: u64) -> String {
    match seconds {
        0..100 => format!("{seconds}s"),
        100..3600 => format!("{}m{:02}", seconds / 60, seconds % 60),
        3600..360_000 => format!("{}h{:02}", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_their_columns() {
        for (number, text) in [
            (0.0, "0"),
            (99_999.0, "99999"),
            (100_000.0, "100k"),
            (1_250_000.0, "1.2M"),
            (f64::NAN, "-"),
        ] {
            assert_eq!(short(number), text);
        }
        for (number, text) in [
            (0.0, "0"),
            (1023.0, "1.0K"),
            (5e6, "4.8M"),
            (3e9, "2.8G"),
            (15.0 * 1024.0, "15K"),
        ] {
            assert_eq!(bytes(number), text);
        }
        assert_eq!(
            (rate(0.0), rate(0.25), rate(12.4)),
            ("0".into(), "0.2".into(), "12".into())
        );
        assert_eq!(
            (signed(12), signed(-300), signed(0)),
            ("+12".into(), "-300".into(), "0".into())
        );
        for number in [0_u64, 1, 9999, 10_000, 99_999, 123_456, 9_999_999, u64::MAX] {
            for number in [i128::from(number), -i128::from(number)] {
                assert!(signed(number).len() <= 6, "{}", signed(number));
            }
            assert!(
                short(number as f64).len() <= 6 && bytes(number as f64).len() <= 5,
                "{number}"
            );
            assert!(age(number).chars().count() <= 6 || number == u64::MAX);
        }
    }

    #[test]
    fn durations_have_the_unit_that_makes_them_short() {
        for (seconds, text) in [
            (0.0, "0.00 ns"),
            (9.5e-7, "950 ns"),
            (1e-6, "1.00 µs"),
            (4.56e-5, "45.6 µs"),
            (0.001_23, "1.23 ms"),
            (0.999_9, "1.00 s"),
            (4.194_304, "4.19 s"),
        ] {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!(
            (age(7), age(125), age(7500)),
            ("7s".into(), "2m05".into(), "2h05".into())
        );
    }
}
