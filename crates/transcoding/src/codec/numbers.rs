//! Whole numbers from the decimal texts that JSON has for them, exactly.

use super::reader::number_length;

/// Why a text is not a whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotWhole {
    /// The text is no JSON number.
    NotANumber,
    /// The number has a fraction.
    Fraction,
    /// The number has more than 64 bits.
    TooLarge,
}

/// A whole number by any JSON form: `1000`, `1e3`, `1000.0`.
#[inline]
pub(super) fn whole(text: &str) -> Result<i128, NotWhole> {
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    let is_short = matches!(digits.len(), 1..=18) && digits.iter().all(u8::is_ascii_digit);
    if !is_short || digits[0] == b'0' && digits.len() > 1 {
        return any_form(text);
    }
    let digits = digits.iter();
    let value = digits.fold(0_i64, |value, digit| value * 10 + i64::from(digit - b'0'));
    let is_negative = text.starts_with('-');
    Ok(if is_negative { -value } else { value }.into())
}

fn any_form(text: &str) -> Result<i128, NotWhole> {
    if number_length(text.as_bytes()) != Ok(text.len()) {
        return Err(NotWhole::NotANumber);
    }
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(mantissa) => (-1, mantissa),
        None => (1, mantissa),
    };
    let (before, behind) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let behind = behind.trim_end_matches('0');
    let digits = || {
        before
            .bytes()
            .chain(behind.bytes())
            .skip_while(|digit| *digit == b'0')
    };
    let count = digits().count();
    if count == 0 {
        return Ok(0);
    }
    // An exponent that is too long for this is beyond any number of digits that were sent.
    let exponent = exponent.parse().unwrap_or(match exponent.starts_with('-') {
        true => i64::MIN / 2,
        false => i64::MAX / 2,
    });
    let shift = exponent - behind.len() as i64;
    if count as i64 + shift > 20 {
        return Err(NotWhole::TooLarge);
    }
    // What a negative shift drops must be zeros.
    let kept = count as i64 + shift.min(0);
    if kept <= 0 {
        return Err(NotWhole::Fraction);
    }
    let (kept, mut value) = (kept as usize, 0_i128);
    if digits().skip(kept).any(|digit| digit != b'0') {
        return Err(NotWhole::Fraction);
    }
    let zeros = std::iter::repeat_n(b'0', shift.max(0) as usize);
    for digit in digits().take(kept).chain(zeros) {
        value = value * 10 + i128::from(digit - b'0');
    }
    Ok(sign * value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_have_many_forms() {
        let cases = [
            ("0", 0),
            ("-0", 0),
            ("-0.0e5", 0),
            ("0e99999999999999999999", 0),
            ("7", 7),
            ("-12", -12),
            ("1e3", 1000),
            ("1.0", 1),
            ("1.5e1", 15),
            ("1000e-3", 1),
            ("-1.20E+2", -120),
            ("9223372036854775807", i64::MAX.into()),
            ("-9223372036854775808", i64::MIN.into()),
            ("18446744073709551615.000", u64::MAX.into()),
            ("0.00000000000000000000000000001e29", 1),
            ("9.223372036854775807e18", i64::MAX.into()),
        ];
        for (text, value) in cases {
            assert_eq!(whole(text), Ok(value), "{text}");
        }
        let zeros = "0".repeat(400);
        assert_eq!(whole(&format!("1{zeros}e-400")), Ok(1));
        for wrong in [
            "", "-", "+1", "01", " 1", "1 ", "1.", ".5", "1e", "0x1", "١", "NaN",
        ] {
            assert_eq!(whole(wrong), Err(NotWhole::NotANumber), "{wrong}");
        }
        for wrong in ["0.5", "1e-1", "15e-1", "1e-99999999999999999999", "-1.5"] {
            assert_eq!(whole(wrong), Err(NotWhole::Fraction), "{wrong}");
        }
        for wrong in [
            "1e20",
            "1e999",
            "1e99999999999999999999",
            &format!("1{zeros}"),
        ] {
            assert_eq!(whole(wrong), Err(NotWhole::TooLarge), "{wrong}");
        }
    }
}
