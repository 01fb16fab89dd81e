//! Why a policy cannot answer, and why settings cannot be used.

use std::fmt;

use pith_proto::quantity::QuantityError;

use crate::SettingsProblem;

/// Why a policy cannot answer. This is a failure of the policy, and the binding's `onFailure` decides what follows; to
/// refuse a pod or a volume, answer `Deny`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(String);

impl Problem {
    /// A problem in a sentence without full stop, for the person who runs the policy.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Problem {}

impl From<String> for Problem {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

impl From<&str> for Problem {
    fn from(reason: &str) -> Self {
        Self(reason.to_owned())
    }
}

impl From<QuantityError> for Problem {
    fn from(error: QuantityError) -> Self {
        Self(error.to_string())
    }
}

impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

impl SettingsProblem {
    /// A problem with one field, named by its path: `teams.web.limits.cpu`. An empty path means the whole.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }

    /// The same problem, seen from one level further out.
    pub fn within(mut self, outer: impl fmt::Display) -> Self {
        self.field = match self.field.as_str() {
            "" => outer.to_string(),
            inner => format!("{outer}.{inner}"),
        };
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_of_a_settings_problem_grows_outwards() {
        let problem = SettingsProblem::new("", "must not be empty").within("cpu").within("limits");
        assert_eq!(problem, SettingsProblem::new("limits.cpu", "must not be empty"));
    }
}
