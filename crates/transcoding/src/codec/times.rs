//! Timestamp, Duration and FieldMask as the texts that JSON has for them.

use super::json_text::JsonText;

/// The range of a Timestamp: 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z, in seconds since 1970.
const TIMESTAMPS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// The longest Duration, 10000 years, in seconds.
const LONGEST: i64 = 315_576_000_000;
const NANOS: i32 = 1_000_000_000;
const DAY: i64 = 86_400;

/// Puts an RFC 3339 text in UTC, with quotes, or tells what is wrong.
pub(super) fn put_timestamp(
    seconds: i64,
    nanos: i32,
    out: &mut JsonText,
) -> Result<(), &'static str> {
    if !TIMESTAMPS.contains(&seconds) {
        return Err("the time is not within the years 1 to 9999");
    }
    if !(0..NANOS).contains(&nanos) {
        return Err("the nanoseconds of the time are not within 0 and 999999999");
    }
    let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY) as u32);
    let (year, month, day) = date_of(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    // Put together in registers: what is written in pieces is slow to be read as one.
    let digits = |value: u32, shift: u32| pair(value) << shift;
    let ascii = |byte: u8, shift: u32| u64::from(byte) << shift;
    let words = [
        ascii(b'"', 0)
            | digits(year / 100, 8)
            | digits(year % 100, 24)
            | ascii(b'-', 40)
            | digits(month, 48),
        ascii(b'-', 0)
            | digits(day, 8)
            | ascii(b'T', 24)
            | digits(hour, 32)
            | ascii(b':', 48)
            | digits(minute, 56),
        digits(minute, 0) >> 8 | ascii(b':', 8) | digits(second, 16),
    ];
    out.put_by(24, |room| {
        for (word, room) in words.iter().zip(room.as_chunks_mut().0) {
            *room = word.to_le_bytes();
        }
        20
    });
    put_fraction(nanos.unsigned_abs(), out);
    out.put(b"Z\"");
    Ok(())
}

/// Puts seconds with an `s`, with quotes, or tells what is wrong.
pub(super) fn put_duration(
    seconds: i64,
    nanos: i32,
    out: &mut JsonText,
) -> Result<(), &'static str> {
    if !(-LONGEST..=LONGEST).contains(&seconds) {
        return Err("the duration is over 10000 years");
    }
    if !(-NANOS < nanos && nanos < NANOS) {
        return Err("the nanoseconds of the duration are not within ±999999999");
    }
    if seconds.signum() * i64::from(nanos.signum()) < 0 {
        return Err("the seconds and nanoseconds of the duration differ in sign");
    }
    out.push(b'"');
    if seconds < 0 || nanos < 0 {
        out.push(b'-');
    }
    super::text::put_integer(seconds.unsigned_abs(), out);
    put_fraction(nanos.unsigned_abs(), out);
    out.put(b"s\"");
    Ok(())
}

/// Puts a point and 3, 6 or 9 digits, or nothing.
fn put_fraction(nanos: u32, out: &mut JsonText) {
    if nanos == 0 {
        return;
    }
    let mut text = *b".000000000";
    let digits = put_digits(nanos, &mut text[1..]);
    if digits > 0 {
        out.put_front(&text, 1 + digits);
    }
}

/// Puts nine digits behind the point; tells how many of them count: 0, 3, 6 or 9.
#[inline]
fn put_digits(nanos: u32, to: &mut [u8]) -> usize {
    let (millis, micros, nanos) = (nanos / 1_000_000, nanos / 1_000 % 1_000, nanos % 1_000);
    for (at, value) in [(0, millis), (3, micros), (6, nanos)] {
        let [tens, ones, ..] = pair(value % 100).to_le_bytes();
        to[at..at + 3].copy_from_slice(&[b'0' + (value / 100) as u8, tens, ones]);
    }
    match (millis, micros, nanos) {
        (0, 0, 0) => 0,
        (_, 0, 0) => 3,
        (_, _, 0) => 6,
        _ => 9,
    }
}

/// The two digits of a number below 100, the first in the low byte.
#[inline]
fn pair(value: u32) -> u64 {
    u64::from(b'0') * 0x101 + u64::from(value / 10) + (u64::from(value % 10) << 8)
}

/// Seconds and nanoseconds of an RFC 3339 text. A leap second is the second before it; digits
/// behind the ninth are dropped.
pub(super) fn parse_timestamp(text: &str) -> Option<(i64, i32)> {
    let mut rest = text.as_bytes();
    let rest = &mut rest;
    let year = digits(rest, 4)?;
    byte(rest, b'-')?;
    let month = digits(rest, 2)?;
    byte(rest, b'-')?;
    let day = digits(rest, 2)?;
    byte(rest, b'T')?;
    let hour = digits(rest, 2)?;
    byte(rest, b':')?;
    let minute = digits(rest, 2)?;
    byte(rest, b':')?;
    let second = digits(rest, 2)?;
    let nanos = fraction(rest)?;
    let offset = match *rest {
        [b'Z', ..] => {
            *rest = &rest[1..];
            0
        }
        [sign @ (b'+' | b'-'), ..] => {
            *rest = &rest[1..];
            let hours = digits(rest, 2).filter(|hours| *hours < 24)?;
            byte(rest, b':')?;
            let minutes = digits(rest, 2).filter(|minutes| *minutes < 60)?;
            (hours * 3600 + minutes * 60) * if *sign == b'+' { 1 } else { -1 }
        }
        _ => return None,
    };
    let is_date = (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
    if !rest.is_empty() || !is_date || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let second_of_day = hour * 3600 + minute * 60 + second.min(59);
    let seconds = days_until(year, month, day) * DAY + second_of_day - offset;
    TIMESTAMPS.contains(&seconds).then_some((seconds, nanos))
}

/// Seconds and nanoseconds of a text as `-1.5s`. Digits behind the ninth are dropped.
pub(super) fn parse_duration(text: &str) -> Option<(i64, i32)> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => (-1, text),
        None => (1, text),
    };
    let mut rest = text.as_bytes();
    let rest = &mut rest;
    let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let seconds: i64 = text[..length].parse().ok()?;
    *rest = &rest[length..];
    let nanos = fraction(rest)?;
    let is_right = *rest == b"s" && seconds <= LONGEST;
    is_right.then_some((sign * seconds, sign as i32 * nanos))
}

/// Whether the text of a time or a duration has digits behind the ninth that count.
pub(crate) fn is_too_fine(text: &str) -> bool {
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    let digits = fraction.bytes().take_while(u8::is_ascii_digit);
    digits.skip(9).any(|digit| digit != b'0')
}

/// Puts one path of a FieldMask by its JSON names; tells if that can be read back.
#[must_use]
pub(super) fn put_mask_path(path: &[u8], out: &mut Vec<u8>) -> bool {
    let mut bytes = path.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'A'..=b'Z' => return false,
            b'_' => match bytes.next() {
                Some(next @ b'a'..=b'z') => out.push(next.to_ascii_uppercase()),
                _ => return false,
            },
            byte => out.push(byte),
        }
    }
    true
}

/// Puts one path of a FieldMask by its proto names; tells if it was given by JSON names.
#[must_use]
pub(super) fn put_proto_path(path: &str, out: &mut Vec<u8>) -> bool {
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' => out.extend_from_slice(&[b'_', byte.to_ascii_lowercase()]),
            b'_' => return false,
            byte => out.push(byte),
        }
    }
    true
}

fn byte(rest: &mut &[u8], wanted: u8) -> Option<()> {
    *rest = rest.strip_prefix(&[wanted])?;
    Some(())
}

fn digits(rest: &mut &[u8], count: usize) -> Option<i64> {
    let (digits, behind) = rest.split_at_checked(count)?;
    let mut value = 0;
    for digit in digits {
        value = value * 10 + i64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    *rest = behind;
    Some(value)
}

/// Nanoseconds of a point and digits, or of nothing.
fn fraction(rest: &mut &[u8]) -> Option<i32> {
    if rest.first() != Some(&b'.') {
        return Some(0);
    }
    let digits = rest[1..].iter().take_while(|byte| byte.is_ascii_digit());
    let count = digits.clone().count();
    if count == 0 {
        return None;
    }
    let padded = digits
        .map(|digit| i32::from(digit - b'0'))
        .chain(std::iter::repeat(0));
    let nanos = padded.take(9).fold(0, |value, digit| value * 10 + digit);
    *rest = &rest[1 + count..];
    Some(nanos)
}

/// Year, month and day of a day counted from 1970-01-01, of those that [`TIMESTAMPS`] has, in the Gregorian
/// calendar. Years are counted from March on in eras of 400, so that leap days come last.
#[inline]
fn date_of(days: i64) -> (u32, u32, u32) {
    // From the first of March of the year 0 on, which no timestamp is before.
    let from_era = (days + 719_468) as u32;
    let (era, day_of_era) = (from_era / 146_097, from_era % 146_097);
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = match month_from_march {
        0..10 => month_from_march + 3,
        _ => month_from_march - 9,
    };
    let year = year_of_era + era * 400 + u32::from(month <= 2);
    (year, month, day)
}

/// The inverse of [`date_of`].
fn days_until(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_the_calendar_is_itself_again() {
        let mut expected = (1, 1, 1);
        for day in TIMESTAMPS.start().div_euclid(DAY)..=TIMESTAMPS.end().div_euclid(DAY) {
            let (year, month, of_month) = date_of(day);
            let (year, month, of_month) = (year.into(), month.into(), of_month.into());
            assert_eq!((year, month, of_month), expected);
            assert_eq!(days_until(year, month, of_month), day);
            expected = match (month, of_month) {
                (12, 31) => (year + 1, 1, 1),
                (_, last) if last == days_in(year, month) => (year, month + 1, 1),
                _ => (year, month, of_month + 1),
            };
        }
        assert_eq!(expected, (10_000, 1, 1));
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        let cases = [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("0001-01-01T00:00:00Z", -62_135_596_800, 0),
            (
                "9999-12-31T23:59:59.999999999Z",
                253_402_300_799,
                999_999_999,
            ),
            ("1969-12-31T23:59:59.001Z", -1, 1_000_000),
            ("2024-02-29T12:30:45.000001Z", 1_709_209_845, 1_000),
        ];
        for (text, seconds, nanos) in cases {
            assert_eq!(parse_timestamp(text), Some((seconds, nanos)), "{text}");
            let mut out = JsonText::default();
            assert_eq!(put_timestamp(seconds, nanos, &mut out), Ok(()));
            assert_eq!(out.into_bytes(), format!("\"{text}\"").into_bytes());
        }
        for (text, seconds) in [
            ("1970-01-01T01:00:00+01:00", 0),
            ("1970-01-01T00:00:00.0-00:30", 1800),
            ("1972-06-30T23:59:60Z", 78_796_799),
        ] {
            assert_eq!(parse_timestamp(text), Some((seconds, 0)), "{text}");
        }
        for wrong in [
            "",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-01-01t00:00:00Z",
            "1970-01-01T00:00:00z",
            "1970-01-01 00:00:00Z",
            "1970-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "1970-13-01T00:00:00Z",
            "1970-00-01T00:00:00Z",
            "1970-01-00T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:60:00Z",
            "1970-01-01T00:00:61Z",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00+1:00",
            "1970-01-01T00:00:00+24:00",
            "1970-01-01T00:00:00+0100",
            "1970-01-01T00:00:00Zx",
            "0000-12-31T23:59:59Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "10000-01-01T00:00:00Z",
            "+970-01-01T00:00:00Z",
            "1970-1-01T00:00:00Z",
            "197я-01-01",
        ] {
            assert_eq!(parse_timestamp(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn durations_are_read_as_they_are_written() {
        let cases = [
            ("0s", 0, 0),
            ("-0.500s", 0, -500_000_000),
            ("1.000000001s", 1, 1),
            ("-315576000000.999999999s", -LONGEST, -999_999_999),
            ("3.000100s", 3, 100_000),
        ];
        for (text, seconds, nanos) in cases {
            assert_eq!(parse_duration(text), Some((seconds, nanos)), "{text}");
            let mut out = JsonText::default();
            assert_eq!(put_duration(seconds, nanos, &mut out), Ok(()));
            assert_eq!(out.into_bytes(), format!("\"{text}\"").into_bytes());
        }
        for wrong in [
            "",
            "s",
            "1",
            "1.s",
            ".5s",
            "+1s",
            "--1s",
            "1ss",
            "1 s",
            "315576000001s",
            "1e3s",
        ] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
        for (seconds, nanos) in [
            (1, -1),
            (-1, 1),
            (LONGEST + 1, 0),
            (0, NANOS),
            (0, -NANOS),
            (i64::MIN, 0),
        ] {
            assert!(put_duration(seconds, nanos, &mut JsonText::default()).is_err());
        }
    }
}
