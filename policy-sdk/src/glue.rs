//! What the code made by `#[policy]` calls. Not for authors: it may change with any version of the SDK.

use serde::de::DeserializeOwned;

use crate::settings::read;
use crate::{Problem, SettingsProblem};

/// Reads the settings and asks the hook; every failure becomes the text of the `err` of the contract.
pub fn answer<S: DeserializeOwned, T>(
    settings: &str,
    hook: impl FnOnce(&S) -> Result<T, Problem>,
) -> Result<T, String> {
    let settings = read::<S>(settings).map_err(|problem| match problem.field.as_str() {
        "" => format!("settings: {}", problem.reason),
        field => format!("settings: {field}: {}", problem.reason),
    })?;
    hook(&settings).map_err(|problem| problem.to_string())
}

/// Reads the settings and checks them.
pub fn validate<S: DeserializeOwned>(
    settings: &str,
    check: impl FnOnce(&S) -> Result<(), SettingsProblem>,
) -> Result<(), SettingsProblem> {
    read::<S>(settings).and_then(|settings| check(&settings))
}

/// Sends the message of a panic to the host's log, which a trap alone would not tell.
#[cfg(target_arch = "wasm32")]
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        match panic.location() {
            Some(place) => crate::log::error(format!("panicked at {}:{}: {message}", place.file(), place.line())),
            None => crate::log::error(format!("panicked: {message}")),
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hook_that_cannot_read_its_settings_fails_with_their_field() {
        #[derive(serde::Deserialize)]
        #[serde(transparent)]
        struct Settings(#[allow(dead_code, reason = "only read")] Vec<u8>);

        let answer = answer::<Settings, ()>("[1, true]", |_| Ok(()));
        assert_eq!(answer, Err("settings: [1]: invalid type: boolean `true`, expected u8".to_owned()));
        let answer = super::answer::<Settings, ()>("1", |_| Ok(()));
        assert_eq!(answer, Err("settings: invalid type: integer `1`, expected a sequence".to_owned()));
    }
}
