//! Values in the words of people: 16MiB, 100ms, 50%, on. Nothing is guessed: what does not parse is `Err(())` and the
//! caller, which knows file, line and key, says what was expected.

use crate::keys::Kind;
use std::path::PathBuf;
use std::time::Duration;

/// A checked value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Path(PathBuf),
    Addresses(Vec<String>),
    Count(Option<u64>),
    Size(u64),
    Share(Share),
    Time(Duration),
    Switch(bool),
}

/// A part of `memory`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Share {
    Bytes(u64),
    Percent(f64),
}

impl Share {
    pub(crate) fn of(self, memory: u64) -> u64 {
        match self {
            Share::Bytes(b) => b,
            Share::Percent(p) => (memory as f64 * p / 100.0) as u64,
        }
    }
}

impl Value {
    /// Reads a text as a value of that kind.
    pub(crate) fn parse(kind: Kind, text: &str) -> Result<Value, ()> {
        let t = text.trim();
        Ok(match kind {
            Kind::Text => Value::Text(clean(text)?.to_string()),
            Kind::Path => Value::Path(PathBuf::from(clean(text)?)),
            Kind::Word(words) => Value::Text(words.iter().find(|w| **w == t).ok_or(())?.to_string()),
            Kind::Addresses => Value::Addresses(
                t.split(',').map(str::trim).filter(|a| !a.is_empty()).map(address).collect::<Result<_, _>>()?,
            ),
            Kind::Count(min, max) => Value::Count(Some(count(t, min, max)?)),
            Kind::OptionalCount(min, max) => Value::Count(Some(count(t, min, max)?)),
            Kind::Size(min) => Value::Size(size(t).filter(|s| *s >= min).ok_or(())?),
            Kind::Share => Value::Share(share(t)?),
            Kind::Time(min, max) => {
                let t = time(t).ok_or(())?;
                if t < Duration::from_millis(min) || t > Duration::from_millis(max) {
                    return Err(());
                }
                Value::Time(t)
            }
            Kind::Switch => Value::Switch(match t {
                "true" | "on" => true,
                "false" | "off" => false,
                _ => return Err(()),
            }),
        })
    }
}

fn clean(text: &str) -> Result<&str, ()> {
    if text.contains(['\0', '\n']) { Err(()) } else { Ok(text) }
}

pub(crate) fn address(text: &str) -> Result<String, ()> {
    let (host, port) = text.rsplit_once(':').ok_or(())?;
    if host.is_empty() || port.parse::<u16>().map_err(|_| ())? == 0 {
        return Err(());
    }
    Ok(text.to_string())
}

fn count(text: &str, min: u64, max: u64) -> Result<u64, ()> {
    text.parse().ok().filter(|n| (min..=max).contains(n)).ok_or(())
}

/// "16MiB", "1.5 GiB", "4096".
fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text);
    let scale = match unit {
        "" | "B" => 1u64,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    scaled(number, scale)
}

/// A time in the words of people: "100ms", "1.5s", "0".
pub fn time(text: &str) -> Option<Duration> {
    let (number, unit) = split(text);
    let nanos = match unit {
        "ms" => 1_000_000u64,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "" if number == "0" => 1,
        _ => return None,
    };
    scaled(number, nanos).map(Duration::from_nanos)
}

fn share(text: &str) -> Result<Share, ()> {
    match text.strip_suffix('%') {
        Some(number) => {
            let p: f64 = number.trim().parse().map_err(|_| ())?;
            if p.is_finite() && p > 0.0 && p <= 100.0 { Ok(Share::Percent(p)) } else { Err(()) }
        }
        None => size(text).filter(|s| *s > 0).map(Share::Bytes).ok_or(()),
    }
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// Whole numbers exactly, fractions as near as a double is. None above 2^63.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let limit = 1u64 << 63;
    if !number.contains('.') {
        return number.parse::<u64>().ok()?.checked_mul(scale).filter(|n| *n <= limit);
    }
    let n = number.parse::<f64>().ok()? * scale as f64;
    (n.is_finite() && n >= 0.0 && n <= limit as f64).then_some(n as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_times_and_shares_in_peoples_words() {
        assert_eq!(size("16MiB"), Some(16 << 20));
        assert_eq!(size("1.5 GiB"), Some(3 << 29));
        assert_eq!(size("4096"), Some(4096));
        assert_eq!(size("900TiB"), Some(900 << 40));
        for bad in ["", "many", "16MB", "16mib", "-1", "MiB", "1..5GiB", "99999999999TiB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
        assert_eq!(time("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(time("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(time("2h"), Some(Duration::from_secs(7200)));
        assert_eq!(time("0"), Some(Duration::ZERO));
        for bad in ["", "10", "1 day", "ms", "-1s", "1e3s", "999999999999h"] {
            assert_eq!(time(bad), None, "{bad}");
        }
        assert_eq!(share("50%").unwrap().of(1000), 500);
        assert_eq!(share("1KiB").unwrap().of(1 << 20), 1024);
        for bad in ["0%", "101%", "%", "NaN%", "0", "half"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        assert_eq!(
            Value::parse(Kind::Addresses, "a:1, [::1]:2").unwrap(),
            Value::Addresses(vec!["a:1".into(), "[::1]:2".into()])
        );
        for bad in ["a", "a:", ":1", "a:0", "a:70000"] {
            assert!(Value::parse(Kind::Addresses, bad).is_err(), "{bad}");
        }
    }
}
