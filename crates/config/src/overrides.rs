//! Overrides as they cross the C ABI: one JSON object of key to value in words.

use dspm_proto::Error;
use std::collections::BTreeMap;

/// `{"copies": "3"}` as the pairs that [`crate::Config::load`] takes; empty text is none.
///
/// # Errors
/// [`Error::Usage`] for anything but an object of texts.
pub fn overrides_from_json(text: &str) -> Result<Vec<(String, String)>, Error> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let map: BTreeMap<String, String> = serde_json::from_str(text)
        .map_err(|e| Error::Usage(format!("overrides: expected a JSON object of key to text: {e}")))?;
    Ok(map.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_of_texts_is_taken() {
        assert_eq!(overrides_from_json("").unwrap(), []);
        assert_eq!(overrides_from_json(r#"{"copies":"3"}"#).unwrap(), [("copies".to_string(), "3".to_string())]);
        for bad in ["[]", "{\"a\":1}", "{", "x"] {
            assert_eq!(overrides_from_json(bad).unwrap_err().code(), 2);
        }
    }
}
