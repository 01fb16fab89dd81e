//! What the code made by `#[policy]` calls. Not for authors: it may change with any version of the SDK.

use serde::de::DeserializeOwned;

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

fn read<S: DeserializeOwned>(settings: &str) -> Result<S, SettingsProblem> {
    let mut reader = serde_json::Deserializer::from_str(settings);
    let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = match error.path().to_string() {
            // What the path of the whole is called.
            path if path == "." => String::new(),
            path => path,
        };
        SettingsProblem::new(field, without_position(&error.into_inner().to_string()))
    })?;
    reader.end().map_err(|error| SettingsProblem::new("", error.to_string()))?;
    Ok(read)
}

/// The host writes the JSON that the policy reads, so a line and column in it would lead nobody anywhere.
fn without_position(message: &str) -> &str {
    message.rsplit_once(" at line ").map_or(message, |(reason, _)| reason)
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
    use std::collections::BTreeMap;

    use super::*;
    use crate::Amount;

    #[derive(serde::Deserialize, Default, Debug)]
    #[serde(deny_unknown_fields, default)]
    struct Settings {
        teams: BTreeMap<String, BTreeMap<String, Amount>>,
        names: Vec<u8>,
    }

    fn check(settings: &str, field: &str, reason: &str) {
        let problem = read::<Settings>(settings).expect_err(settings);
        assert_eq!(problem, SettingsProblem::new(field, reason));
    }

    #[test]
    fn problem_with_settings_names_the_path_of_the_field() {
        check(
            r#"{"teams": {"web": {"cpu": "a lot"}}}"#,
            "teams.web.cpu",
            "\"a lot\" is no quantity: it does not begin with a number",
        );
        check(
            r#"{"teams": {"web": {"cpu": 0.5}}}"#,
            "teams.web.cpu",
            "invalid type: floating point `0.5`, expected a quantity as text, like \"500m\" or \"1Gi\"",
        );
        check(r#"{"names": [1, 300]}"#, "names[1]", "invalid value: integer `300`, expected u8");
        check(r#"{"nmaes": []}"#, "nmaes", "unknown field `nmaes`, expected `teams` or `names`");
        check("[", "", "EOF while parsing a list");
        check("{} {}", "", "trailing characters at line 1 column 4");
    }

    #[test]
    fn hook_that_cannot_read_its_settings_fails_with_their_field() {
        let answer = answer::<Settings, ()>(r#"{"names": [true]}"#, |_| Ok(()));
        assert_eq!(answer, Err("settings: names[0]: invalid type: boolean `true`, expected u8".to_owned()));
    }

    #[test]
    fn whole_number_is_an_amount() {
        let settings = read::<Settings>(r#"{"teams": {"web": {"cpu": 2}}}"#).expect("valid");
        assert_eq!(settings.teams["web"]["cpu"].to_string(), "2");
    }
}
