//! The Kubernetes resource quantity: `500m`, `2`, `1Gi`, `1e3`.
//!
//! The grammar and the canonical form are those of `k8s.io/apimachinery/pkg/api/resource`. Two things differ on purpose:
//! an amount too large for the arithmetic here is refused, where Kubernetes quietly puts its own maximum in its place, and
//! digits beyond what 128 bits hold are refused, where Kubernetes turns to big numbers. Like Kubernetes, a fraction finer
//! than a nano unit is rounded away from zero.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Nano units in one unit.
const NANO: i128 = 1_000_000_000;

/// An amount of a resource, exact to a nano unit, with the family of suffixes that it was written in.
///
/// Equality and order go by value: `1Gi` equals `1024Mi`, and `1` equals `1000m`.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// The family of suffixes that a quantity is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `Ki`, `Mi`, `Gi`, …: powers of 1024.
    BinarySi,
    /// `m`, `k`, `M`, `G`, …: powers of 1000. Also a plain number.
    DecimalSi,
    /// `e3`, `E6`, …: powers of ten.
    DecimalExponent,
}

/// Why a text is not a quantity. Its `Display` is a sentence that quotes the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantityError {
    text: String,
    reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Empty,
    NoDigits,
    Suffix,
    TooLarge,
}

impl Quantity {
    /// A number of bytes, written with binary suffixes.
    pub const fn from_bytes(bytes: u64) -> Self {
        // 2^64 times 10^9 is far below 2^127.
        Self { nanos: bytes as i128 * NANO, format: Format::BinarySi }
    }

    /// A number of thousandths, written with decimal suffixes.
    pub const fn from_millis(millis: u64) -> Self {
        Self { nanos: millis as i128 * (NANO / 1000), format: Format::DecimalSi }
    }

    /// The whole units, rounded up. Absent for a negative amount and for one above 2^64 - 1.
    pub fn bytes(&self) -> Option<u64> {
        if self.is_negative() {
            return None;
        }
        u64::try_from(self.nanos / NANO + i128::from(self.nanos % NANO != 0)).ok()
    }

    /// True for `0` in whatever form.
    pub const fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// True for an amount below zero.
    pub const fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Both together, in the form of the first. Saturates.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self { nanos: self.nanos.saturating_add(other.nanos), format: self.format }
    }

    /// So many ten-thousandths of it, rounded up to a whole number of steps, in the form of the step. Saturates.
    #[must_use]
    pub const fn share(self, ten_thousandths: u64, step: Self) -> Self {
        let exact = self.nanos.saturating_mul(ten_thousandths as i128);
        let step_nanos = step.nanos.saturating_mul(10_000);
        let steps = exact / step_nanos + (exact % step_nanos > 0) as i128;
        Self { nanos: step.nanos.saturating_mul(steps), format: step.format }
    }

    /// The family of suffixes that the quantity was written in.
    pub const fn format(&self) -> Format {
        self.format
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse(text).map_err(|reason| QuantityError { text: text.to_owned(), reason })
    }
}

fn parse(text: &str) -> Result<Quantity, Reason> {
    if text.is_empty() {
        return Err(Reason::Empty);
    }
    let (negative, unsigned) = match text.as_bytes()[0] {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (whole, rest) = split_digits(unsigned);
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => split_digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(Reason::NoDigits);
    }
    let scale = Scale::from_suffix(suffix)?;
    let nanos = scale.nanos(whole, fraction.trim_end_matches('0'))?;
    Ok(Quantity { nanos: if negative { -nanos } else { nanos }, format: scale.format() })
}

/// The leading ASCII digits, and what follows them.
fn split_digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// What a suffix multiplies by.
enum Scale {
    /// 2 to this power.
    Binary(u32),
    /// 10 to this power.
    Decimal(i64),
    /// 10 to this power, written out as an exponent.
    Exponent(i64),
}

/// Every suffix but the exponents, with the power of 10 or of 2 that it stands for.
const DECIMAL: [(&str, i64); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

impl Scale {
    fn from_suffix(suffix: &str) -> Result<Self, Reason> {
        if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
            return Ok(Self::Decimal(*power));
        }
        if let Some((_, power)) = BINARY.iter().find(|(name, _)| *name == suffix) {
            return Ok(Self::Binary(*power));
        }
        let exponent = suffix.strip_prefix(['e', 'E']).ok_or(Reason::Suffix)?;
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Reason::Suffix);
        }
        exponent.parse().map(Self::Exponent).map_err(|_| Reason::TooLarge)
    }

    fn format(&self) -> Format {
        match self {
            Self::Binary(_) => Format::BinarySi,
            Self::Decimal(_) => Format::DecimalSi,
            Self::Exponent(_) => Format::DecimalExponent,
        }
    }

    /// `whole.fraction` times this scale, in nano units, rounded up.
    fn nanos(&self, whole: &str, fraction: &str) -> Result<i128, Reason> {
        let digits = mantissa(whole, fraction)?;
        let decimals = i64::try_from(fraction.len()).map_err(|_| Reason::TooLarge)?;
        match self {
            Self::Decimal(power) | Self::Exponent(power) => {
                let power = power.checked_sub(decimals).and_then(|power| power.checked_add(9));
                times_power_of_ten(digits, power.ok_or(Reason::TooLarge)?)
            }
            Self::Binary(power) => {
                let scaled = digits.checked_mul(1 << power).ok_or(Reason::TooLarge)?;
                times_power_of_ten(scaled, 9 - decimals)
            }
        }
    }
}

/// The digits read as one integer, as if the point were not there.
fn mantissa(whole: &str, fraction: &str) -> Result<i128, Reason> {
    let digits = [whole, fraction].concat();
    match digits.trim_start_matches('0') {
        "" => Ok(0),
        significant => significant.parse().map_err(|_| Reason::TooLarge),
    }
}

/// Exact where the power is not negative, rounded up where it is.
fn times_power_of_ten(value: i128, power: i64) -> Result<i128, Reason> {
    if value == 0 {
        return Ok(0);
    }
    let factor = u32::try_from(power.unsigned_abs()).ok().and_then(|power| 10_i128.checked_pow(power));
    match (power < 0, factor) {
        (false, factor) => factor.and_then(|factor| value.checked_mul(factor)).ok_or(Reason::TooLarge),
        (true, Some(factor)) => Ok(value / factor + i128::from(value % factor != 0)),
        // Divided by more than any i128: what is left is less than one nano unit, and rounds up to one.
        (true, None) => Ok(1),
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: the largest suffix of the family that leaves no fraction.
    ///
    /// As in Kubernetes, a binary amount below 1024 or with a fraction is written with decimal suffixes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.nanos % NANO == 0;
        match self.format {
            Format::BinarySi if whole && (self.nanos / NANO).abs() >= 1024 => self.fmt_binary(f),
            Format::BinarySi | Format::DecimalSi => self.fmt_decimal(f),
            Format::DecimalExponent => self.fmt_exponent(f),
        }
    }
}

impl Quantity {
    fn fmt_binary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut number = self.nanos / NANO;
        let mut suffix = "";
        for (name, _) in BINARY {
            if number % 1024 != 0 {
                break;
            }
            number /= 1024;
            suffix = name;
        }
        write!(f, "{number}{suffix}")
    }

    fn fmt_decimal(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, power) = self.without_thousands(18);
        let suffix = DECIMAL.iter().find(|(_, p)| *p == power).map_or("", |(name, _)| *name);
        write!(f, "{number}{suffix}")
    }

    fn fmt_exponent(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.without_thousands(i64::MAX) {
            (number, 0) => write!(f, "{number}"),
            (number, power) => write!(f, "{number}e{power}"),
        }
    }

    /// The amount as a number times 10 to a power, with as many factors of 1000 as go moved into the power.
    fn without_thousands(&self, largest_power: i64) -> (i128, i64) {
        if self.is_zero() {
            return (0, 0);
        }
        let (mut number, mut power) = (self.nanos, -9);
        while number % 1000 == 0 && power < largest_power {
            number /= 1000;
            power += 3;
        }
        (number, power)
    }
}

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, reason } = self;
        match reason {
            Reason::Empty => write!(f, "an empty text is no quantity; write one like `500m`, `2` or `1Gi`"),
            Reason::NoDigits => write!(f, "{text:?} is no quantity: it does not begin with a number"),
            Reason::Suffix => write!(
                f,
                "{text:?} is no quantity: after the number comes one of n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei, or \
                 an exponent like e3"
            ),
            Reason::TooLarge => write!(f, "{text:?} is too large or too precise for a quantity"),
        }
    }
}

impl std::error::Error for QuantityError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, canonical: &str) {
        let quantity: Quantity = text.parse().expect(text);
        assert_eq!(quantity.to_string(), canonical, "canonical form of {text:?}");
    }

    fn check_refused(text: &str, sentence: &str) {
        let error = text.parse::<Quantity>().expect_err(text);
        assert_eq!(error.to_string(), sentence);
    }

    #[test]
    fn canonical_form_has_the_largest_suffix_without_a_fraction() {
        for (text, canonical) in [
            ("0", "0"),
            ("-0", "0"),
            ("0Gi", "0"),
            ("0e5", "0"),
            ("000", "0"),
            ("+5", "5"),
            ("-5", "-5"),
            ("5000m", "5"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("007", "7"),
            ("1500", "1500"),
            ("1500m", "1500m"),
            ("1000", "1k"),
            ("1000k", "1M"),
            ("100000000", "100M"),
            ("1000P", "1E"),
            ("5E", "5E"),
            ("1000E", "1000E"),
            ("1u", "1u"),
            ("1000n", "1u"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1Ki", "1Ki"),
            ("1023Ki", "1023Ki"),
            ("-1024Mi", "-1Gi"),
            ("1.0005Ki", "1024512m"),
            ("0.1Ki", "102400m"),
            ("1024Ei", "1024Ei"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1e+3", "1e3"),
            ("12e2", "1200"),
            ("1e-3", "1e-3"),
            ("1500e-3", "1500e-3"),
            ("1e21", "1e21"),
        ] {
            check(text, canonical);
        }
    }

    #[test]
    fn fraction_finer_than_a_nano_unit_is_rounded_away_from_zero() {
        check("0.1n", "1n");
        check("-0.1n", "-1n");
        check("1.0000000001", "1000000001n");
        check("1e-100", "1e-9");
        check("0.00000000000000000000000000000000000000000000000001", "1n");
    }

    #[test]
    fn text_outside_the_grammar_is_refused_with_the_text() {
        let suffix = "is no quantity: after the number comes one of n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei, or an \
                      exponent like e3";
        check_refused("", "an empty text is no quantity; write one like `500m`, `2` or `1Gi`");
        for text in ["-", "+", ".", "m", "Gi", "--1", " 1", "e3", "∞"] {
            check_refused(text, &format!("{text:?} is no quantity: it does not begin with a number"));
        }
        for text in [
            "1 ", "1K", "1ki", "1mi", "1GI", "1GB", "1g", "1e", "1e+", "1e1.5", "1e 3", "1.2.3", "1-1", "1Kii", "1n3",
            "1_0",
        ] {
            check_refused(text, &format!("{text:?} {suffix}"));
        }
    }

    #[test]
    fn amount_beyond_the_arithmetic_is_refused_not_capped() {
        for text in ["1e30", "1e99999999999999999999", "999999999999999999999999999999999999999999", "999999999999Ei"] {
            check_refused(text, &format!("{text:?} is too large or too precise for a quantity"));
        }
    }

    #[test]
    fn order_and_equality_go_by_value() {
        let parse = |text: &str| text.parse::<Quantity>().expect(text);
        assert_eq!(parse("1Gi"), parse("1024Mi"));
        assert_eq!(parse("1"), parse("1000m"));
        assert_eq!(parse("1e3"), parse("1k"));
        assert!(parse("1G") < parse("1Gi"));
        assert!(parse("-1") < parse("0"));
    }

    #[test]
    fn bytes_are_rounded_up_and_absent_out_of_range() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("1m", Some(1)),
            ("1500m", Some(2)),
            ("1Gi", Some(1 << 30)),
            ("18446744073709551615", Some(u64::MAX)),
            ("16Ei", None),
            ("-1", None),
        ] {
            assert_eq!(text.parse::<Quantity>().expect(text).bytes(), bytes, "{text}");
        }
    }

    #[test]
    fn number_of_bytes_is_written_with_binary_suffixes() {
        for (bytes, text) in [(0, "0"), (512, "512"), (1 << 30, "1Gi"), (1_000_000, "1000000"), (3 << 20, "3Mi")] {
            let quantity = Quantity::from_bytes(bytes);
            assert_eq!(quantity.bytes(), Some(bytes));
            // Kubernetes writes a binary amount that no power of 1024 divides as a plain number.
            assert_eq!(quantity.to_string(), text);
        }
    }

    fn quantities() -> impl Strategy<Value = Quantity> {
        let text = ("[+-]?", "[0-9]{1,12}(\\.[0-9]{0,9})?", "(|n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e-?[0-9]|E-?[0-9])");
        text.prop_filter_map("in range", |(sign, number, suffix)| format!("{sign}{number}{suffix}").parse().ok())
    }

    proptest! {
        #[test]
        fn canonical_form_reads_back_as_the_same_amount(quantity in quantities()) {
            prop_assert_eq!(quantity.to_string().parse::<Quantity>(), Ok(quantity));
        }

        #[test]
        fn canonical_form_is_a_fixpoint(quantity in quantities()) {
            let canonical = quantity.to_string();
            let again = canonical.parse::<Quantity>().expect(&canonical);
            prop_assert_eq!(again.to_string(), canonical);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[-+.0-9eEinumkKMGTP]{0,60}|\\PC{0,20}") {
            let _ = text.parse::<Quantity>();
        }
    }
}
