//! Reading settings, with the path of the field in every error.
//!
//! serde_path_to_error over serde_json does the same, but makes a wrapped reader of JSON text for each type of the settings,
//! and serde's own sentences bring in the writing of floating-point numbers: together a quarter of a module. Here the text
//! becomes a JSON value first, and one small reader walks that.

use std::fmt;

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde_json::Value;

use crate::SettingsProblem;

/// Reads settings from their JSON text.
pub(crate) fn read<S: DeserializeOwned>(text: &str) -> Result<S, SettingsProblem> {
    let whole: Value = serde_json::from_str(text).map_err(|error| SettingsProblem::new("", error.to_string()))?;
    read_value(&whole)
}

/// Reads settings, or a part of a table of cases, from a JSON value.
pub(crate) fn read_value<S: DeserializeOwned>(whole: &Value) -> Result<S, SettingsProblem> {
    S::deserialize(At { value: whole, path: &Path::Whole })
        .map_err(|error| SettingsProblem { field: error.field.unwrap_or_default(), reason: error.reason })
}

/// Where in the settings the reader is.
enum Path<'a> {
    Whole,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Whole => Ok(()),
            Path::Field(Path::Whole, name) => f.write_str(name),
            Path::Field(outer, name) => write!(f, "{outer}.{name}"),
            Path::Item(outer, index) => write!(f, "{outer}[{index}]"),
        }
    }
}

/// What went wrong; the innermost place that sees it adds where.
#[derive(Debug)]
struct Error {
    field: Option<String>,
    reason: String,
}

impl Error {
    fn at(mut self, path: &Path<'_>) -> Self {
        self.field.get_or_insert_with(|| path.to_string());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self { field: None, reason: reason.to_string() }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("invalid type: {}, expected {expected}", name(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("invalid value: {}, expected {expected}", name(found)))
    }
}

/// What serde calls a value, but for floating-point numbers: to write one out takes 16 KB of code.
fn name(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("boolean `{value}`"),
        Unexpected::Unsigned(number) => format!("integer `{number}`"),
        Unexpected::Signed(number) => format!("integer `{number}`"),
        Unexpected::Float(_) => "a number with a fraction".to_owned(),
        Unexpected::Str(text) => format!("string {text:?}"),
        Unexpected::Unit => "null".to_owned(),
        Unexpected::Seq => "sequence".to_owned(),
        Unexpected::Map => "map".to_owned(),
        Unexpected::Other(other) => other.to_owned(),
        _ => "another kind of value".to_owned(),
    }
}

/// A value, and where it stands.
#[derive(Clone, Copy)]
struct At<'a> {
    value: &'a Value,
    path: &'a Path<'a>,
}

impl<'de> Deserializer<'de> for At<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::String(text) => visitor.visit_str(text),
            Value::Array(items) => visitor.visit_seq(Items { items: items.iter().enumerate(), path: self.path }),
            Value::Object(fields) => {
                visitor.visit_map(Fields { fields: fields.iter(), current: None, path: self.path })
            }
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => visitor.visit_u64(number),
                (None, Some(number)) => visitor.visit_i64(number),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
        }
        .map_err(|error: Error| error.at(self.path))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    /// A case without content is its name; one with content is a map from its name to that.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let case = match self.value {
            Value::String(name) => Case { name, content: &Value::Null, path: self.path },
            Value::Object(fields) if fields.len() == 1 => {
                let (name, content) = fields.iter().next().ok_or_else(|| de::Error::custom("an empty map"))?;
                Case { name, content, path: self.path }
            }
            Value::Object(_) => {
                let reason = "invalid type: map, expected a text, or a map with one key";
                return Err(<Error as de::Error>::custom(reason).at(self.path));
            }
            _ => return self.deserialize_any(visitor),
        };
        visitor.visit_enum(case).map_err(|error| error.at(self.path))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

struct Items<'a> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Value>>,
    path: &'a Path<'a>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some((index, value)) = self.items.next() else { return Ok(None) };
        let path = Path::Item(self.path, index);
        seed.deserialize(At { value, path: &path }).map(Some).map_err(|error| error.at(&path))
    }
}

struct Fields<'a> {
    fields: serde_json::map::Iter<'a>,
    current: Option<(&'a String, &'a Value)>,
    path: &'a Path<'a>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.current = self.fields.next();
        let Some((name, _)) = self.current else { return Ok(None) };
        let key: de::value::StrDeserializer<'_, Error> = name.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error| error.at(&Path::Field(self.path, name)))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let (name, value) = self.current.ok_or_else(|| de::Error::custom("a value was read before its key"))?;
        let path = Path::Field(self.path, name);
        seed.deserialize(At { value, path: &path }).map_err(|error| error.at(&path))
    }
}

struct Case<'a> {
    name: &'a str,
    content: &'a Value,
    path: &'a Path<'a>,
}

impl<'de, 'a> EnumAccess<'de> for Case<'a> {
    type Error = Error;
    type Variant = Content<'a>;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Content<'a>), Error> {
        let key: de::value::StrDeserializer<'_, Error> = self.name.into_deserializer();
        Ok((seed.deserialize(key)?, Content { value: self.content, name: self.name, outer: self.path }))
    }
}

struct Content<'a> {
    value: &'a Value,
    name: &'a str,
    outer: &'a Path<'a>,
}

impl Content<'_> {
    /// Reads the content; its path ends in the name of the case.
    fn read<T>(&self, read: impl FnOnce(At<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let path = Path::Field(self.outer, self.name);
        read(At { value: self.value, path: &path }).map_err(|error| error.at(&path))
    }
}

impl<'de> VariantAccess<'de> for Content<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        self.read(|at| match at.value {
            Value::Null => Ok(()),
            _ => Err(de::Error::invalid_type(Unexpected::Other("content"), &"the case without content")),
        })
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        self.read(|at| seed.deserialize(at))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.read(|at| at.deserialize_any(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.read(|at| at.deserialize_any(visitor))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::Amount;

    #[derive(Deserialize, Default, Debug, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Settings {
        teams: BTreeMap<String, BTreeMap<String, Amount>>,
        names: Vec<u8>,
        word: Option<String>,
        ratio: f64,
        mode: Mode,
        pairs: Vec<(i64, char)>,
    }

    #[derive(Deserialize, Default, Debug, PartialEq)]
    #[serde(rename_all = "camelCase")]
    enum Mode {
        #[default]
        Off,
        Within(Names),
        Between {
            low: u8,
            high: u8,
        },
        Both(u8, u8),
    }

    #[derive(Deserialize, Debug, PartialEq)]
    #[serde(transparent)]
    struct Names(Vec<String>);

    fn check(settings: &str, field: &str, reason: &str) {
        assert_eq!(read::<Settings>(settings), Err(SettingsProblem::new(field, reason)), "{settings}");
    }

    #[test]
    fn every_kind_of_value_is_read_as_serde_json_reads_it() {
        for settings in [
            "{}",
            r#"{"teams": {"web": {"cpu": 2, "memory": "1Gi"}}, "names": [0, 255], "word": "x", "ratio": 0.5}"#,
            r#"{"word": null, "ratio": -3, "pairs": [[-1, "a"], [9, "ä"]]}"#,
            r#"{"mode": "off"}"#,
            r#"{"mode": {"off": null}}"#,
            r#"{"mode": {"within": ["a"]}}"#,
            r#"{"mode": {"between": {"low": 1, "high": 2}}}"#,
            r#"{"mode": {"both": [1, 2]}}"#,
        ] {
            let expected: Settings = serde_json::from_str(settings).expect(settings);
            assert_eq!(read::<Settings>(settings), Ok(expected), "{settings}");
        }
    }

    #[test]
    fn problem_names_the_path_of_the_field() {
        check(
            r#"{"teams": {"web": {"cpu": "a lot"}}}"#,
            "teams.web.cpu",
            "\"a lot\" is no quantity: it does not begin with a number",
        );
        check(
            r#"{"teams": {"web": {"cpu": 0.5}}}"#,
            "teams.web.cpu",
            "invalid type: a number with a fraction, expected a quantity as text, like \"500m\" or \"1Gi\"",
        );
        check(r#"{"names": [1, 300]}"#, "names[1]", "invalid value: integer `300`, expected u8");
        check(
            r#"{"nmaes": []}"#,
            "nmaes",
            "unknown field `nmaes`, expected one of `teams`, `names`, `word`, `ratio`, `mode`, `pairs`",
        );
        check(r#"{"pairs": [[1, "a"], [2]]}"#, "pairs[1]", "invalid length 1, expected a tuple of size 2");
        check(r#"{"mode": {"within": [1]}}"#, "mode.within[0]", "invalid type: integer `1`, expected a string");
        check(r#"{"mode": {"between": {"low": 1}}}"#, "mode.between", "missing field `high`");
        check(r#"{"mode": "on"}"#, "mode", "unknown variant `on`, expected one of `off`, `within`, `between`, `both`");
        check(r#"{"mode": {"off": 1}}"#, "mode.off", "invalid type: content, expected the case without content");
        check(r#"{"mode": {}}"#, "mode", "invalid type: map, expected a text, or a map with one key");
        check("[", "", "EOF while parsing a list at line 1 column 1");
        check("{} {}", "", "trailing characters at line 1 column 4");
    }
}
