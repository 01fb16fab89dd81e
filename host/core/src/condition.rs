//! Conditions of a binding: expressions in CEL about an object, as Kubernetes' `matchConditions`.
//!
//! An expression is read once, and nothing that it could not do in time is taken (decisions/0037): it has no loop within a loop, makes
//! no value in one, and looks at so much of an object and no more. What is not taken is a [`Problem`] with its place; what goes wrong
//! later, about one object, is a sentence, and no answer.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators};
use cel::common::types::{CelBool, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, Type};
use cel::common::value::{StaticVal, Val};
use cel::{Context, Env, ExecutionError, Value};
use regex::{Regex, RegexBuilder};

use crate::object::{Claim, Entries, Namespace};
use crate::policy::{Owner, PodFacts};
use crate::text::clean;

/// The longest expression, in bytes.
pub const LONGEST: usize = 1024;
/// How deep an expression may be written, brackets included.
const DEEPEST_WRITTEN: u16 = 64;
/// How deep it may go, what stands for its macros included: for each level the evaluation takes up to 50 KB of a stack, and those of
/// requests have 2 MiB.
const DEEPEST: u16 = 16;
/// The most labels, annotations or owners that are looked at.
const MOST_ENTRIES: usize = 256;
/// The most text of an object that one expression looks at, in bytes.
const MOST_TEXT: usize = 64 << 10;
/// The most memory for one compiled pattern, in bytes.
const LARGEST_PATTERN: usize = 256 << 10;
/// How much is repeated of what somebody wrote, in bytes.
const WORDS: usize = 120;
/// The annotation in which kubectl keeps what was applied: the whole object once more, and so no business of a condition.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What expressions know: the standard functions, without those of time, and `matches` for patterns that are compiled already.
/// It is the same for all, never changes, and takes longer to make than an expression to answer.
static KNOWN: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib().with_optional_support(false);
    cel::add_member_overload!(env, fn matches: (CelString, Pattern) -> CelBool)
        .expect("without the feature `regex` there is no other function of that name");
    Arc::new(env)
});

/// What a condition is about. There is no pod where a volume is made.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The pod.
    pub pod: Option<&'a PodFacts>,
    /// Its namespace, or that of the claim.
    pub namespace: &'a Namespace,
    /// The claim; one of the pod's.
    pub claim: &'a Claim,
}

/// An expression that holds or does not.
#[derive(Debug, Clone)]
pub struct Condition {
    /// In messages and explanations.
    pub name: String,
    text: String,
    expression: Arc<IdedExpr>,
    /// The variables and fields that it reads: nothing else is made for it.
    reads: BTreeSet<(&'static str, &'static str)>,
    patterns: Vec<Pattern>,
}

impl PartialEq for Condition {
    fn eq(&self, other: &Condition) -> bool {
        (&self.name, &self.text) == (&other.name, &other.text)
    }
}

impl Eq for Condition {}

/// Why an expression is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {why}")]
pub struct Problem {
    line: usize,
    column: usize,
    why: String,
}

/// What a part of an expression gives, as far as that can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Number,
    Text,
    List,
    Map,
    Null,
    Unknown,
}

/// The fields of each variable.
const VARIABLES: [(&str, &[(&str, Kind)]); 3] = [
    (
        "pod",
        &[
            ("labels", Kind::Map),
            ("annotations", Kind::Map),
            ("name", Kind::Text),
            ("generateName", Kind::Text),
            ("serviceAccount", Kind::Text),
            ("priorityClass", Kind::Text),
            ("owners", Kind::List),
        ],
    ),
    ("namespaceObject", &[("name", Kind::Text), ("labels", Kind::Map), ("annotations", Kind::Map)]),
    (
        "claim",
        &[
            ("name", Kind::Text),
            ("labels", Kind::Map),
            ("annotations", Kind::Map),
            ("storageClass", Kind::Text),
            ("requestedBytes", Kind::Number),
            ("accessModes", Kind::List),
        ],
    ),
];

impl Condition {
    /// Reads an expression.
    pub fn parse(name: &str, text: &str) -> Result<Condition, Problem> {
        if text.len() > LONGEST {
            let why = format!("the expression has {} bytes: at most {LONGEST}", text.len());
            return Err(Problem { line: 1, column: 1, why });
        }
        let parser = KNOWN.parser().max_recursion_depth(DEEPEST_WRITTEN);
        // What somebody wrote must not end what answers requests.
        let parsed = catch_unwind(AssertUnwindSafe(|| parser.parse_with_source_info(text)));
        let (mut expression, source) = match parsed {
            Ok(Ok(parsed)) => parsed,
            Ok(Err(errors)) => return Err(unreadable(&errors.errors)),
            Err(_) => return Err(Problem { line: 1, column: 1, why: "the parser has given up".into() }),
        };
        let mut reader = Reader { source, reads: BTreeSet::new(), patterns: Vec::new() };
        let kind = reader.read(&mut expression, Within::default())?;
        if !matches!(kind, Kind::Bool | Kind::Unknown) {
            return Err(
                reader.problem(&expression, format!("it gives {}, and a condition is true or false", kind.words()))
            );
        }
        let Reader { reads, patterns, .. } = reader;
        Ok(Condition { name: name.into(), text: text.into(), expression: Arc::new(expression), reads, patterns })
    }

    /// Whether it holds. The error is a sentence that says why nobody can tell.
    pub fn holds(&self, about: &About<'_>) -> Result<bool, String> {
        let answer = self.evaluate(about);
        answer.map_err(|why| {
            let without_pod = about.pod.is_none() && self.reads.iter().any(|(variable, _)| *variable == "pod");
            let hint =
                if without_pod { "; where a volume is made there is no pod: begin with `pod == null || `" } else { "" };
            format!("`{}` cannot be evaluated: {why}{hint}", self.name)
        })
    }

    fn evaluate(&self, about: &About<'_>) -> Result<bool, String> {
        let mut context = Context::with_env(KNOWN.clone());
        let mut allowance = MOST_TEXT;
        for (variable, _) in VARIABLES {
            let mut fields = self.reads.iter().filter(|(of, _)| *of == variable).map(|(_, field)| *field).peekable();
            if fields.peek().is_none() {
                continue;
            }
            if variable == "pod" && about.pod.is_none() {
                context.add_variable_as_val(variable, Box::new(CelNull));
                continue;
            }
            let mut map = HashMap::new();
            for field in fields.filter(|field| !field.is_empty()) {
                if let Some(value) = value(about, (variable, field), &mut allowance)? {
                    map.insert(CelMapKey::from(field), value);
                }
            }
            context.add_variable_as_val(variable, Box::new(CelMap::from(map)));
        }
        for (index, pattern) in self.patterns.iter().enumerate() {
            context.add_variable_as_val(of_pattern(index), Box::new(pattern.clone()));
        }
        let value = Value::resolve_val(&self.expression, &context).map_err(|error| sentence(&error))?;
        match value.downcast_ref::<CelBool>() {
            Some(answer) => Ok(*answer.inner()),
            None => Err(format!(
                "it gives a value of the type `{}`, and a condition is true or false",
                value.get_type().name()
            )),
        }
    }
}

/// What an expression reads of an object; none where that has no such thing.
fn value<'a>(
    about: &About<'a>,
    (variable, field): (&str, &str),
    allowance: &mut usize,
) -> Result<Option<Box<dyn Val + 'a>>, String> {
    let place = |why: &str| format!("`{variable}.{field}` {why}");
    let mut text = |text: &'a str| -> Result<CelString<'a>, String> {
        *allowance = allowance.checked_sub(text.len()).ok_or_else(|| {
            place(&format!("is too much: an expression looks at {MOST_TEXT} bytes of an object at most"))
        })?;
        Ok(CelString::from(text))
    };
    let few = |count: usize| {
        if count <= MOST_ENTRIES { Ok(()) } else { Err(place(&format!("has {count} entries: at most {MOST_ENTRIES}"))) }
    };
    let mut entries = |entries: &'a Entries| -> Result<Option<Box<dyn Val + 'a>>, String> {
        few(entries.len())?;
        let mut map: HashMap<CelMapKey<'a>, Box<dyn Val + 'a>> = HashMap::with_capacity(entries.len());
        for (key, value) in entries.iter().filter(|(key, _)| **key != LAST_APPLIED) {
            map.insert(CelMapKey::String(text(key)?), Box::new(text(value)?));
        }
        Ok(Some(Box::new(CelMap::from(map))))
    };
    let Some(pod) = about.pod.filter(|_| variable == "pod") else {
        let (namespace, claim) = (about.namespace, about.claim);
        return match (variable, field) {
            ("namespaceObject", "labels") => entries(&namespace.labels),
            ("namespaceObject", "annotations") => entries(&namespace.annotations),
            ("namespaceObject", "name") => Ok(Some(Box::new(text(&namespace.name)?))),
            ("claim", "labels") => entries(&claim.labels),
            ("claim", "annotations") => entries(&claim.annotations),
            ("claim", "name") => Ok(Some(Box::new(text(&claim.name)?))),
            ("claim", "storageClass") => optional(claim.storage_class.as_deref(), text),
            ("claim", "requestedBytes") => {
                let bytes = claim.requested_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
                Ok(bytes.map(|bytes| Box::new(CelInt::from(bytes)) as Box<dyn Val>))
            }
            ("claim", "accessModes") => {
                few(claim.access_modes.len())?;
                let modes =
                    claim.access_modes.iter().map(|mode| Box::new(CelString::from(mode.as_str())) as Box<dyn Val>);
                Ok(Some(Box::new(CelList::from(modes.collect::<Vec<_>>()))))
            }
            _ => Ok(None),
        };
    };
    match field {
        "labels" => entries(&pod.labels),
        "annotations" => entries(&pod.annotations),
        "name" => optional(pod.name.as_deref(), text),
        "generateName" => optional(pod.generate_name.as_deref(), text),
        "serviceAccount" => Ok(Some(Box::new(text(&pod.service_account)?))),
        "priorityClass" => optional(pod.priority_class.as_deref(), text),
        "owners" => {
            few(pod.owners.len())?;
            let owners = pod.owners.iter().map(|it| owner(it, &mut text)).collect::<Result<Vec<_>, _>>()?;
            Ok(Some(Box::new(CelList::from(owners))))
        }
        _ => Ok(None),
    }
}

fn optional<'a>(
    it: Option<&'a str>,
    mut text: impl FnMut(&'a str) -> Result<CelString<'a>, String>,
) -> Result<Option<Box<dyn Val + 'a>>, String> {
    it.map(|it| Ok(Box::new(text(it)?) as Box<dyn Val + 'a>)).transpose()
}

fn owner<'a>(
    it: &'a Owner,
    text: &mut impl FnMut(&'a str) -> Result<CelString<'a>, String>,
) -> Result<Box<dyn Val + 'a>, String> {
    let Owner { api_version, kind, name, controller } = it;
    let mut map: HashMap<CelMapKey<'a>, Box<dyn Val + 'a>> = HashMap::with_capacity(4);
    for (key, value) in [("apiVersion", api_version), ("kind", kind), ("name", name)] {
        map.insert(CelMapKey::from(key), Box::new(text(value)?));
    }
    map.insert(CelMapKey::from("controller"), Box::new(CelBool::from(*controller)));
    Ok(Box::new(CelMap::from(map)))
}

/// What went wrong, without the values that it went wrong with: this goes into logs.
fn sentence(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => {
            let key = clean(key, WORDS);
            format!("there is no `{key}`: ask for it first, with has() or `in`")
        }
        ExecutionError::NoSuchOverload(error) => error.to_string(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "it divides by zero".into(),
        ExecutionError::Overflow(..) => "a number is too large".into(),
        ExecutionError::IndexOutOfBounds(_) => "a list is not that long".into(),
        ExecutionError::FunctionError { function, .. } => format!("`{function}` cannot read what it is given"),
        _ => "a value is not of the type that is needed there".into(),
    }
}

fn unreadable(errors: &[cel::ParseError]) -> Problem {
    let place = |at: isize| usize::try_from(at).unwrap_or_default().max(1);
    match errors.first() {
        Some(error) => {
            Problem { line: place(error.pos.0), column: place(error.pos.1), why: clean(&error.msg, 2 * WORDS) }
        }
        None => Problem { line: 1, column: 1, why: "it is no expression".into() },
    }
}

/// Where a part of an expression stands.
#[derive(Debug, Clone, Copy, Default)]
struct Within<'a> {
    depth: u16,
    /// The loop: its variable, and the one that keeps what it found.
    of: Option<(&'a str, &'a str)>,
}

/// Reads an expression as it was parsed: what may not be in it, what it reads, and its patterns, which it takes out.
struct Reader {
    source: SourceInfo,
    reads: BTreeSet<(&'static str, &'static str)>,
    patterns: Vec<Pattern>,
}

impl Reader {
    fn read(&mut self, it: &mut IdedExpr, within: Within<'_>) -> Result<Kind, Problem> {
        if within.depth == DEEPEST {
            return Err(self.problem(it, format!("it is nested deeper than {DEEPEST} levels")));
        }
        let within = Within { depth: within.depth + 1, ..within };
        let id = it.id;
        let refused = |reader: &Reader, why: &str| Err(reader.problem_at(id, why.into()));
        match &mut it.expr {
            Expr::Literal(literal) => Ok(match literal {
                LiteralValue::Boolean(_) => Kind::Bool,
                LiteralValue::Int(_) | LiteralValue::UInt(_) | LiteralValue::Double(_) => Kind::Number,
                LiteralValue::String(_) => Kind::Text,
                LiteralValue::Null => Kind::Null,
                LiteralValue::Bytes(_) => return refused(self, "bytes are of no use here"),
            }),
            Expr::List(list) => {
                for element in &mut list.elements {
                    self.read(element, within)?;
                }
                Ok(Kind::List)
            }
            Expr::Ident(name) => match within.of {
                Some((of_loop, kept)) if [of_loop, kept].contains(&name.as_str()) => Ok(Kind::Unknown),
                _ if variable(name).is_some() => refused(
                    self,
                    &format!("name a field of it, such as `{name}.labels`; `{name}` alone can be compared with null"),
                ),
                _ => refused(
                    self,
                    &format!("there is no variable `{}`: there are pod, namespaceObject and claim", clean(name, WORDS)),
                ),
            },
            Expr::Select(select) => {
                let is_test = select.test;
                if let Expr::Ident(name) = &select.operand.expr
                    && let Some((variable, fields)) = variable(name)
                    && within.of.is_none_or(|(of_loop, _)| of_loop != variable)
                {
                    let Some((field, kind)) = fields.iter().find(|(field, _)| *field == select.field) else {
                        let known: Vec<&str> = fields.iter().map(|(field, _)| *field).collect();
                        let field = clean(&select.field, WORDS);
                        return refused(
                            self,
                            &format!("`{variable}` has no field `{field}`: it has {}", known.join(", ")),
                        );
                    };
                    self.reads.insert((variable, field));
                    return Ok(if is_test { Kind::Bool } else { *kind });
                }
                let of = self.read(&mut select.operand, within)?;
                Ok(if is_test { Kind::Bool } else { of.element() })
            }
            Expr::Call(call) => self.call(id, call, within),
            Expr::Comprehension(it) => self.comprehension(id, it, within),
            Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => refused(self, "maps and objects cannot be made here"),
        }
    }

    fn call(&mut self, id: u64, call: &mut CallExpr, within: Within<'_>) -> Result<Kind, Problem> {
        let name = call.func_name.clone();
        if [operators::EQUALS, operators::NOT_EQUALS].contains(&&*name) && self.is_about_null(&call.args) {
            return Ok(Kind::Bool);
        }
        let keeps = |it: &IdedExpr| matches!((&it.expr, within.of), (Expr::Ident(it), Some((_, kept))) if it == kept);
        if name == operators::ADD && within.of.is_some() && !call.args.first().is_some_and(keeps) {
            return Err(self.problem_at(
                id,
                "`+` within all(), exists() or exists_one() is not taken: it could go on for long".into(),
            ));
        }
        if name == "matches" {
            self.pattern(id, call, within)?;
            return Ok(Kind::Bool);
        }
        let target = call.target.as_deref_mut().map(|target| self.read(target, within)).transpose()?;
        let mut kinds = Vec::with_capacity(call.args.len());
        for argument in &mut call.args {
            kinds.push(self.read(argument, within)?);
        }
        match (&*name, target, &*kinds) {
            (operators::CONDITIONAL, None, [_, one, other]) => Ok(if one == other { *one } else { Kind::Unknown }),
            (operators::INDEX, None, [of, _]) => Ok(of.element()),
            (
                operators::LOGICAL_AND
                | operators::LOGICAL_OR
                | operators::LOGICAL_NOT
                | operators::NOT_STRICTLY_FALSE
                | operators::EQUALS
                | operators::NOT_EQUALS
                | operators::LESS
                | operators::LESS_EQUALS
                | operators::GREATER
                | operators::GREATER_EQUALS
                | operators::IN,
                None,
                _,
            )
            | ("startsWith" | "endsWith" | "contains", Some(_), [_]) => Ok(Kind::Bool),
            (operators::ADD, None, [one, other]) => Ok(if one == other { *one } else { Kind::Unknown }),
            (
                operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE | operators::MODULO | operators::NEGATE,
                None,
                _,
            )
            | ("size", Some(_), [])
            | ("size" | "int", None, [_]) => Ok(Kind::Number),
            ("string", None, [_]) => Ok(Kind::Text),
            _ => {
                let why =
                    "there are size(), int(), string(), and of text startsWith(), endsWith(), contains(), matches()";
                Err(self.problem_at(
                    id,
                    format!("`{}` is no function here, or takes other arguments: {why}", clean(&name, WORDS)),
                ))
            }
        }
    }

    /// Whether these are a variable and `null`: there is no pod where a volume is made.
    fn is_about_null(&mut self, arguments: &[IdedExpr]) -> bool {
        let [one, other] = arguments else { return false };
        let is_null = |it: &IdedExpr| it.expr == Expr::Literal(LiteralValue::Null);
        let named = |it: &IdedExpr| if let Expr::Ident(name) = &it.expr { variable(name) } else { None };
        let found = named(one).filter(|_| is_null(other)).or_else(|| named(other).filter(|_| is_null(one)));
        // Without a field: it is enough that it is there.
        self.reads.extend(found.map(|(variable, _)| (variable, "")));
        found.is_some()
    }

    /// Compiles the pattern of `text.matches(pattern)`, and leaves a variable in its place.
    fn pattern(&mut self, id: u64, call: &mut CallExpr, within: Within<'_>) -> Result<(), Problem> {
        let (Some(target), [argument]) = (call.target.as_deref_mut(), &mut *call.args) else {
            return Err(self.problem_at(id, "write it as text.matches('pattern')".into()));
        };
        if within.of.is_some() {
            return Err(self.problem_at(
                id,
                "matches() within all(), exists() or exists_one() is not taken: it could go on for long".into(),
            ));
        }
        self.read(target, within)?;
        let Expr::Literal(LiteralValue::String(pattern)) = &argument.expr else {
            return Err(self.problem(argument, "the pattern of matches() must be written out".into()));
        };
        let compiled = RegexBuilder::new(pattern.inner()).size_limit(LARGEST_PATTERN).build();
        let compiled = compiled.map_err(|error| {
            self.problem(argument, format!("the pattern cannot be used: {}", clean(&error.to_string(), 2 * WORDS)))
        })?;
        argument.expr = Expr::Ident(of_pattern(self.patterns.len()));
        self.patterns.push(Pattern(Arc::new(compiled)));
        Ok(())
    }

    fn comprehension(&mut self, id: u64, it: &mut ComprehensionExpr, within: Within<'_>) -> Result<Kind, Problem> {
        if within.of.is_some() || contains_loop(&it.iter_range) {
            return Err(self.problem_at(
                id,
                "all(), exists() or exists_one() within another is not taken: it could go on for long".into(),
            ));
        }
        if !matches!(it.accu_init.expr, Expr::Literal(_)) || it.iter_var2.is_some() {
            return Err(self.problem_at(id, "there are all(), exists() and exists_one(), and no other macros".into()));
        }
        if variable(&it.iter_var).is_some() {
            return Err(
                self.problem_at(id, format!("`{}` has a meaning already: give it another name here", it.iter_var))
            );
        }
        self.read(&mut it.iter_range, within)?;
        let (of_loop, kept) = (it.iter_var.clone(), it.accu_var.clone());
        let inside = Within { of: Some((&of_loop, &kept)), ..within };
        for part in [&mut it.loop_cond, &mut it.loop_step, &mut it.result] {
            self.read(part, inside)?;
        }
        Ok(Kind::Bool)
    }

    fn problem(&self, at: &IdedExpr, why: String) -> Problem {
        self.problem_at(at.id, why)
    }

    fn problem_at(&self, id: u64, why: String) -> Problem {
        let start = self.source.offset_for(id).map_or(0, |(start, _)| start as usize);
        let before: Vec<char> = self.source.source.chars().take(start).collect();
        let line = 1 + before.iter().filter(|it| **it == '\n').count();
        let column = 1 + before.iter().rev().take_while(|it| **it != '\n').count();
        Problem { line, column, why }
    }
}

/// Whether there is a loop on the way to what another one goes over.
fn contains_loop(it: &IdedExpr) -> bool {
    match &it.expr {
        Expr::Comprehension(_) => true,
        Expr::Select(select) => contains_loop(&select.operand),
        Expr::List(list) => list.elements.iter().any(contains_loop),
        Expr::Call(call) => call.target.iter().any(|it| contains_loop(it)) || call.args.iter().any(contains_loop),
        _ => false,
    }
}

fn variable(name: &str) -> Option<(&'static str, &'static [(&'static str, Kind)])> {
    VARIABLES.into_iter().find(|(variable, _)| *variable == name)
}

/// No expression can name such a variable itself.
fn of_pattern(index: usize) -> String {
    format!("@pattern{index}")
}

impl Kind {
    fn element(self) -> Kind {
        if self == Kind::Map { Kind::Text } else { Kind::Unknown }
    }

    fn words(self) -> &'static str {
        match self {
            Kind::Bool => "true or false",
            Kind::Number => "a number",
            Kind::Text => "text",
            Kind::List => "a list",
            Kind::Map => "a map",
            Kind::Null => "null",
            Kind::Unknown => "something",
        }
    }
}

/// A pattern that is compiled already, as a value that expressions hand to `matches`.
#[derive(Debug, Clone)]
struct Pattern(Arc<Regex>);

static PATTERN: Type = Type::new_unspecified_type("pattern");

impl Val for Pattern {
    fn get_type(&self) -> &Type {
        &PATTERN
    }

    fn cel_type() -> &'static Type {
        &PATTERN
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
}

impl StaticVal for Pattern {}

fn matches(text: &CelString<'_>, pattern: &Pattern) -> CelBool {
    CelBool::from(pattern.0.is_match(text.inner()))
}

#[cfg(test)]
mod tests;
