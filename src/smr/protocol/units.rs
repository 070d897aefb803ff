//! Sizes and durations as people write them: `"64MiB"`, `"500ms"`. A plain number is in the unit that the key
//! names.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserializer;
use serde::de::{Error, Visitor};

/// Names of a unit, and how many of the smallest one it has.
type Units = &'static [(&'static str, u64)];

const SIZES: Units = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

const MICROSECONDS: Units = &[("us", 1), ("µs", 1), ("ms", 1000), ("s", 1_000_000)];
const MILLISECONDS: Units = &[("ms", 1), ("s", 1000), ("min", 60_000), ("h", 3_600_000)];

/// A size in bytes.
pub fn bytes<'de, D: Deserializer<'de>, T: TryFrom<u64>>(from: D) -> Result<T, D::Error> {
    from.deserialize_any(Quantity(SIZES, "a size, as 1048576 or \"1MiB\"", PhantomData))
}

/// A duration in milliseconds.
pub fn milliseconds<'de, D: Deserializer<'de>, T: TryFrom<u64>>(from: D) -> Result<T, D::Error> {
    let expected = "a duration, as 500 (milliseconds) or \"500ms\"";
    from.deserialize_any(Quantity(MILLISECONDS, expected, PhantomData))
}

/// A duration in microseconds.
pub fn microseconds<'de, D: Deserializer<'de>, T: TryFrom<u64>>(from: D) -> Result<T, D::Error> {
    let expected = "a duration, as 50 (microseconds) or \"50us\"";
    from.deserialize_any(Quantity(MICROSECONDS, expected, PhantomData))
}

/// A size with its unit, in bytes.
#[must_use]
pub fn parse_bytes(text: &str) -> Option<u64> {
    parse(text, SIZES)
}

/// A duration with its unit, in milliseconds.
#[must_use]
pub fn parse_milliseconds(text: &str) -> Option<u64> {
    parse(text, MILLISECONDS)
}

struct Quantity<T>(Units, &'static str, PhantomData<T>);

impl<T: TryFrom<u64>> Visitor<'_> for Quantity<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
        T::try_from(value).map_err(|_| E::custom(format!("{value} is too large")))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
        let value = u64::try_from(value).map_err(|_| E::custom(format!("{value} is below zero")))?;
        self.visit_u64(value)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        let wrong = || E::custom(format!("\"{text}\" is not {}", self.1));
        match parse(text, self.0).ok_or_else(wrong) {
            Ok(value) => self.visit_u64(value),
            Err(error) => Err(error),
        }
    }
}

/// A whole number and a unit, with or without a space in between.
fn parse(text: &str, units: Units) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_read_in_every_unit_and_nothing_else_is() {
        for (text, units, expected) in [
            ("64MiB", SIZES, Some(64 << 20)),
            ("64 MiB", SIZES, Some(64 << 20)),
            ("2GB", SIZES, Some(2_000_000_000)),
            ("7B", SIZES, Some(7)),
            ("500ms", MILLISECONDS, Some(500)),
            ("2min", MILLISECONDS, Some(120_000)),
            ("50us", MICROSECONDS, Some(50)),
            ("1s", MICROSECONDS, Some(1_000_000)),
            ("64", SIZES, None),
            ("64mib", SIZES, None),
            ("-1MiB", SIZES, None),
            ("1.5GiB", SIZES, None),
            ("MiB", SIZES, None),
            ("", SIZES, None),
            ("50us", MILLISECONDS, None),
            ("99999999TiB", SIZES, None),
        ] {
            assert_eq!(parse(text, units), expected, "{text:?}");
        }
    }
}
