//! The write guard: which requests a solver may send for one order. Pure, and used twice: by the
//! gateway, which refuses what it does not let through, and by the list of conformance, so that a
//! solver's own tests meet the same refusals. It names nothing of either.
//!
//! A plugin.yaml says under `guard:` how its provider's API changes records ([`Guard::parse`]); the
//! rules hold holes such as `{name}` and `{value}`, and only what this order was made for fits
//! those ([`Order`]). What is said to be an id has to be proven: it came in the provider's own
//! answer to a question about this order's name ([`Guard::learn`]), or stands in the operator's
//! `config:`. What replaces a whole record set has to leave everybody else's values in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Map, Value};

/// The rules of one plugin.
#[derive(Debug, Clone)]
pub struct Guard {
    raw: Value,
    /// What tells where ids and values stand. Never refused for its holes when it is a `GET`.
    reads: Vec<Rule>,
    /// What changes records.
    writes: Vec<Rule>,
    /// What is neither, and needs another method than `GET`.
    also: Vec<Rule>,
}

/// What one call is about, and what has been proven on the way.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// In `find-zone`: the names that a zone may have.
    candidates: Vec<String>,
    zone: String,
    name: String,
    values: Vec<String>,
    zone_ids: BTreeSet<String>,
    ids: BTreeSet<String>,
    /// Zones and their ids, as the provider told them.
    found: BTreeSet<(String, String)>,
    /// The values at the name, when they were asked for in this call.
    there: Option<Vec<String>>,
    /// Everything in the zone, when it was asked for in this call.
    whole: Option<Vec<Whole>>,
    /// What else of the zone a request that rewrites it has to repeat.
    kept: Vec<String>,
    may_write: bool,
}

/// One record of a whole zone: `name`, `type`, `value` and whatever else it has.
type Whole = BTreeMap<String, String>;

/// A request as the solver made it: with placeholders, without secrets.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a str,
    /// The URL.
    pub url: &'a str,
    /// The fields, names in lower case.
    pub headers: &'a [(String, String)],
    /// The body.
    pub body: &'a [u8],
}

/// A request that may be sent.
#[derive(Debug, Clone)]
pub struct Passed {
    /// What to send instead of the body: the same, written in the one way that has one meaning.
    pub body: Option<Vec<u8>>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Free,
    Read(usize),
    Write(usize, Vec<String>),
}

impl Guard {
    /// Reads `guard:` of a plugin.yaml.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(raw: &Value) -> Result<Self, String> {
        let map = raw.as_object().ok_or("expected a mapping with `reads`, `writes` and `also`")?;
        if let Some(key) = map.keys().find(|key| !["reads", "writes", "also"].contains(&&***key)) {
            return Err(format!("unknown key {key:?}; there are `reads`, `writes` and `also`"));
        }
        let rules = |key: &str| -> Result<Vec<Rule>, String> {
            let Some(list) = map.get(key) else { return Ok(Vec::new()) };
            let list = list.as_array().ok_or_else(|| format!("`{key}` is a list of rules"))?;
            let rule = |(number, raw): (usize, &Value)| {
                Rule::parse(raw, key)
                    .map_err(|why| format!("rule {} of `{key}`: {why}", number + 1))
            };
            list.iter().enumerate().map(rule).collect()
        };
        let guard = Self {
            raw: raw.clone(),
            reads: rules("reads")?,
            writes: rules("writes")?,
            also: rules("also")?,
        };
        if guard.writes.is_empty() {
            return Err("`writes` is missing: a solver that may change nothing is none".to_owned());
        }
        Ok(guard)
    }

    /// The rules as they were written.
    pub fn raw(&self) -> &Value {
        &self.raw
    }

    /// The rules in lines: what may be changed, which answers are proofs, what else may be sent.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (verb, rules) in
            [("change", &self.writes), ("look up", &self.reads), ("also", &self.also)]
        {
            lines.extend(rules.iter().map(|rule| format!("{verb} {}", rule.line)));
        }
        lines
    }

    /// Whether a request may be sent, and how. `config` is the operator's.
    ///
    /// # Errors
    /// Why not.
    pub fn check(
        &self,
        order: &Order,
        asked: &Asked<'_>,
        config: &Value,
    ) -> Result<Passed, String> {
        for (name, _) in asked.headers {
            if name.starts_with("x-http-method") || name.starts_with("x-method-override") {
                return Err(format!("the field {name} would make it another method"));
            }
        }
        let at = Place::parse(asked.url)?;
        let context = Context { order, config };
        let mut refusal = None;
        let mut is_guarded = false;
        for (index, rule) in self.writes.iter().enumerate() {
            if !rule.is_for(asked.method, &at) {
                continue;
            }
            is_guarded = true;
            if !order.may_write {
                // It may still be a question: where one URL serves for all, only the body tells.
                refusal = Some("this call may change nothing".to_owned());
                continue;
            }
            let mut set = Vec::new();
            let fits = context.fits(rule, asked, &at, &mut set).and_then(|body| {
                order.may_change(rule, &set)?;
                Ok(body)
            });
            match fits {
                Ok(body) => return Ok(Passed { body, kind: Kind::Write(index, set) }),
                Err(why) => refusal = refusal.or(Some(why)),
            }
        }
        let is_safe = matches!(asked.method, "GET" | "HEAD");
        for (kind, rules) in [(true, &self.reads), (false, &self.also)] {
            for (index, rule) in rules.iter().enumerate() {
                if !rule.is_for(asked.method, &at) {
                    continue;
                }
                match context.fits(rule, asked, &at, &mut Vec::new()) {
                    Ok(body) => {
                        let kind = if kind { Kind::Read(index) } else { Kind::Free };
                        return Ok(Passed { body, kind });
                    }
                    Err(why) => refusal = refusal.or(Some(why)),
                }
            }
        }
        if is_safe && !is_guarded {
            if at.query.iter().any(|(name, _)| name == "_method") {
                return Err("the parameter _method would make it another method".to_owned());
            }
            return Ok(Passed { body: None, kind: Kind::Free });
        }
        Err(refusal.unwrap_or_else(|| {
            "the `guard` of its plugin.yaml has no rule for such a request".to_owned()
        }))
    }

    /// Takes what the answer to a request proves.
    pub fn learn(&self, order: &mut Order, passed: &Passed, status: u16, body: &[u8]) {
        let is_success = (200..300).contains(&status);
        match &passed.kind {
            Kind::Free => {}
            Kind::Write(index, set) => {
                let Some(rule) = self.writes.get(*index).filter(|_| is_success) else { return };
                if rule.whole.is_some() {
                    // Somebody else may be at it as well: the next one reads again.
                    order.whole = None;
                }
                if rule.replaces {
                    order.there = Some(set.iter().map(|value| unquoted(value)).collect());
                }
                if let (Some(path), Some(answer)) = (&rule.id, read(body)) {
                    order.ids.extend(select(&answer, path).into_iter().filter_map(scalar));
                }
            }
            Kind::Read(index) => {
                let Some(rule) = self.reads.get(*index) else { return };
                if rule.value.is_some() && rule.is_named && status == 404 {
                    order.there = Some(Vec::new());
                }
                if let Some(answer) = read(body).filter(|_| is_success) {
                    order.take(rule, &answer);
                }
            }
        }
    }
}

impl PartialEq for Guard {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl serde::Serialize for Guard {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.raw.serialize(serializer)
    }
}

impl Order {
    /// A call that has no business with any record.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// `find-zone`.
    pub fn zones(candidates: &[String]) -> Self {
        Self { candidates: candidates.to_vec(), ..Self::default() }
    }

    /// `poll`: `zone_ids` are proven ids of the zone.
    pub fn zone(zone: &str, zone_ids: impl IntoIterator<Item = String>) -> Self {
        let zone_ids = zone_ids.into_iter().collect();
        Self { zone: zone.to_owned(), zone_ids, ..Self::default() }
    }

    /// `present` and `cleanup`: as [`Self::zone`], for `values` at `name`; `ids` are proven ids of
    /// records.
    #[must_use]
    pub fn records(
        mut self,
        name: &str,
        values: &[String],
        ids: impl IntoIterator<Item = String>,
    ) -> Self {
        name.clone_into(&mut self.name);
        self.values = values.to_vec();
        self.ids.extend(ids);
        self.may_write = true;
        self
    }

    /// Ids that the provider gave for this zone.
    pub fn zone_ids(&self, zone: &str) -> Vec<String> {
        let of = self.found.iter().filter(|(name, _)| name == zone);
        of.map(|(_, id)| id.clone()).collect()
    }

    /// Ids of this order's own records.
    pub fn ids(&self) -> Vec<String> {
        self.ids.iter().cloned().collect()
    }

    fn is_own(&self, value: &str) -> bool {
        self.values.iter().any(|own| own == value)
    }

    /// The name in the zone, `None` outside it.
    fn relative(&self) -> Option<&str> {
        match self.name.strip_suffix(self.zone.as_str())? {
            "" => Some(""),
            before => before.strip_suffix('.'),
        }
    }

    /// Whether a text of an answer is the own name, in any of the ways in which providers write it.
    fn is_name(&self, text: &str) -> bool {
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let relative = self.relative();
        !self.name.is_empty()
            && (text == self.name
                || relative == Some(text.as_str())
                || (relative == Some("") && text == "@"))
    }

    /// Whether `after` may be the whole zone: all that is there, and what this order adds or removes.
    fn may_rewrite(&self, after: &[Whole]) -> Result<(), String> {
        let Some(before) = &self.whole else {
            return Err("it would rewrite the zone without having read it in this call; somebody \
                        else's records could be in it"
                .to_owned());
        };
        let part = |record: &Whole, part: &str| record.get(part).cloned().unwrap_or_default();
        let is_own = |record: &Whole| {
            part(record, "type") == "TXT"
                && self.is_name(&part(record, "name"))
                && self.is_own(&unquoted(&part(record, "value")))
        };
        let others = |all: &[Whole]| {
            let mut others: Vec<Whole> = all.iter().filter(|it| !is_own(it)).cloned().collect();
            others.sort();
            others
        };
        let (before, after) = (others(before), others(after));
        let shown = |it: &Whole| {
            format!("{} {} {}", part(it, "name"), part(it, "type"), shown(&part(it, "value")))
        };
        if let Some(more) = after.iter().find(|it| !before.contains(it)) {
            return Err(format!("the record {} is neither there nor of this order", shown(more)));
        }
        if let Some(lost) = before.iter().find(|it| !after.contains(it)) {
            return Err(format!("the record {} of somebody else would be lost", shown(lost)));
        }
        match before == after {
            true => Ok(()),
            false => Err("a record is there more or less often than it was".to_owned()),
        }
    }

    fn may_change(&self, rule: &Rule, set: &[String]) -> Result<(), String> {
        if !rule.replaces {
            return Ok(());
        }
        let Some(there) = &self.there else {
            return Err("it would replace a record set without having read it in this call; \
                        somebody else's values could be in it"
                .to_owned());
        };
        let others = |values: &[String]| -> BTreeSet<String> {
            values.iter().map(|value| unquoted(value)).filter(|it| !self.is_own(it)).collect()
        };
        let (before, after) = (others(there), others(set));
        if let Some(lost) = before.difference(&after).next() {
            return Err(format!("the value {} of somebody else would be lost", shown(lost)));
        }
        match after.difference(&before).next() {
            Some(more) => Err(format!("{} is not a value of this order", shown(more))),
            None => Ok(()),
        }
    }

    /// What an answer says about zones, and about records of the own name.
    fn take(&mut self, rule: &Rule, answer: &Value) {
        let mut there = Vec::new();
        if let Some(parts) = &rule.whole {
            let record = |item: &Value| {
                let text = |path: &String| {
                    let path: Vec<String> = path_of(path);
                    select(item, &path).into_iter().find_map(scalar).unwrap_or_default()
                };
                parts.iter().map(|(part, path)| (part.clone(), text(path))).collect::<Whole>()
            };
            // An answer without the place of the records says nothing about them.
            if let Some((_, around)) = rule.each.split_last()
                && !select(answer, around).is_empty()
            {
                self.whole = Some(items(answer, &rule.each).into_iter().map(record).collect());
            }
            let kept = |path: &Vec<String>| select(answer, path).into_iter().find_map(scalar);
            self.kept = rule.keep.iter().filter_map(kept).collect();
        }
        for item in items(answer, &rule.each) {
            if let (Some(zone), Some(id)) = (&rule.zone, &rule.zone_id) {
                let zones = select(item, zone).into_iter().filter_map(scalar);
                let ids: Vec<String> = select(item, id).into_iter().filter_map(scalar).collect();
                for zone in zones {
                    let zone = zone.strip_suffix('.').unwrap_or(&zone).to_ascii_lowercase();
                    for id in &ids {
                        // An id that is a path goes by its last segment as well.
                        for id in [id.as_str(), id.rsplit('/').next().unwrap_or_default()] {
                            if zone == self.zone {
                                self.zone_ids.insert(id.to_owned());
                            }
                            if self.candidates.contains(&zone) {
                                self.found.insert((zone.clone(), id.to_owned()));
                            }
                        }
                    }
                }
            }
            let is = |path: &Option<Vec<String>>, test: &dyn Fn(&str) -> bool| {
                path.as_ref().is_none_or(|path| {
                    let found: Vec<String> =
                        select(item, path).into_iter().filter_map(scalar).collect();
                    !found.is_empty() && found.iter().all(|text| test(text))
                })
            };
            if !is(&rule.kind, &|kind| matches!(kind, "TXT" | "16"))
                || !is(&rule.name, &|name| self.is_name(name))
            {
                continue;
            }
            let Some(value) = &rule.value else { continue };
            let values = select(item, value).into_iter().filter_map(joined);
            let values: Vec<String> = values.map(|value| unquoted(&value)).collect();
            let is_about = rule.is_named || rule.name.is_some();
            if let Some(id) = &rule.id
                && is_about
                && !values.is_empty()
                && values.iter().all(|value| self.is_own(value))
            {
                self.ids.extend(select(item, id).into_iter().filter_map(scalar));
            }
            there.extend(values);
        }
        // Only an answer about this very name is known to have all of it.
        if rule.value.is_some() && rule.is_named {
            self.there = Some(there);
        }
    }
}

/// One rule.
#[derive(Debug, Clone)]
struct Rule {
    line: String,
    method: String,
    /// None when any granted URL that ends so will do.
    base: Option<String>,
    path: Vec<Text>,
    query: Query,
    headers: Vec<(String, Text)>,
    body: Body,
    /// Whether it makes what stands in `{set}` the whole record set.
    replaces: bool,
    /// Whether the request says which name it is about.
    is_named: bool,
    each: Vec<String>,
    name: Option<Vec<String>>,
    kind: Option<Vec<String>>,
    value: Option<Vec<String>>,
    id: Option<Vec<String>>,
    zone: Option<Vec<String>>,
    zone_id: Option<Vec<String>>,
    /// Where the parts of each record of a whole zone are: paths in an answer, and in a form the names
    /// that numbers follow.
    whole: Option<BTreeMap<String, String>>,
    is_write: bool,
    /// What of an answer a later request has to repeat.
    keep: Vec<Vec<String>>,
}

#[derive(Debug, Clone)]
enum Query {
    Any,
    These(Vec<Field>),
}

#[derive(Debug, Clone)]
enum Body {
    Free,
    None,
    Json(Shape),
    Form(Shape),
    Xml(Shape),
}

/// What a part of a body has to look like.
#[derive(Debug, Clone)]
enum Shape {
    Exact(Value),
    Text(Text),
    /// Every item of a list.
    Each(Box<Shape>),
    Fields(Vec<Field>),
}

#[derive(Debug, Clone)]
struct Field {
    name: String,
    is_optional: bool,
    shape: Shape,
}

/// A text with at most one hole.
#[derive(Debug, Clone)]
struct Text {
    before: String,
    hole: Option<Hole>,
    after: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hole {
    Name,
    NameLabel,
    Relative,
    Owner,
    Zone,
    ZoneLabel,
    ZoneRest,
    ZoneId,
    Kept,
    Id,
    Value,
    Set,
    There,
    Number,
    Bool,
    Text,
    Any,
    Config,
}

/// Names of holes.
const HOLES: [(&str, Hole); 18] = [
    ("name", Hole::Name),
    ("name-label", Hole::NameLabel),
    ("relative", Hole::Relative),
    ("owner", Hole::Owner),
    ("zone", Hole::Zone),
    ("zone-label", Hole::ZoneLabel),
    ("zone-rest", Hole::ZoneRest),
    ("zone-id", Hole::ZoneId),
    ("kept", Hole::Kept),
    ("id", Hole::Id),
    ("value", Hole::Value),
    ("set", Hole::Set),
    ("there", Hole::There),
    ("number", Hole::Number),
    ("bool", Hole::Bool),
    ("text", Hole::Text),
    ("any", Hole::Any),
    ("config", Hole::Config),
];

impl Rule {
    fn parse(raw: &Value, list: &str) -> Result<Self, String> {
        let short;
        let map = match raw {
            Value::String(at) => {
                short = Map::from_iter([("at".to_owned(), Value::from(at.as_str()))]);
                &short
            }
            Value::Object(map) => map,
            _ => return Err("expected a mapping, or `METHOD URL`".to_owned()),
        };
        if let Some(key) = map.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(format!("unknown key {key:?}; there are: {}", KEYS.join(", ")));
        }
        let at = map.get("at").and_then(Value::as_str).ok_or("`at: METHOD URL` is missing")?;
        let (method, url) = at.split_once(' ').ok_or("`at` is METHOD URL")?;
        let (url, query) = match url.split_once('?') {
            None => (url, Query::These(Vec::new())),
            Some((url, "*")) => (url, Query::Any),
            Some((url, query)) => {
                let field = |pair: &str| {
                    let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
                    Field::parse(name, &Value::from(text))
                };
                (url, Query::These(query.split('&').map(field).collect::<Result<_, _>>()?))
            }
        };
        let (base, path) = match url.strip_prefix("*/") {
            Some(path) => (None, path),
            None => {
                let start = url.find("://").map_or(0, |at| at + 3);
                let end = url.get(start..).and_then(|rest| rest.find('/'));
                let end = end.ok_or("the URL has no path; `*/path` stands for any granted base")?;
                let (base, path) = url.split_at(start + end);
                (Some(base.to_ascii_lowercase()), path.strip_prefix('/').unwrap_or(path))
            }
        };
        let path: Vec<Text> = path.split('/').map(Text::parse).collect::<Result<_, _>>()?;
        let mut headers = Vec::new();
        if let Some(wanted) = map.get("headers").and_then(Value::as_object) {
            for (name, text) in wanted {
                let text = text.as_str().ok_or("`headers` are texts")?;
                headers.push((name.to_ascii_lowercase(), Text::parse(text)?));
            }
        }
        let shape = |key: &str| map.get(key).map(Shape::parse).transpose();
        let body = match (shape("json")?, shape("form")?, shape("xml")?) {
            (Some(shape), None, None) => Body::Json(shape),
            (None, Some(shape), None) => Body::Form(shape),
            (None, None, Some(shape)) => Body::Xml(shape),
            (None, None, None) if list == "reads" => Body::Free,
            (None, None, None) => Body::None,
            _ => return Err("one of `json`, `form` and `xml`".to_owned()),
        };
        let path_at = |key: &str| -> Result<Option<Vec<String>>, String> {
            let Some(text) = map.get(key) else { return Ok(None) };
            let text = text.as_str().ok_or_else(|| format!("`{key}` is a path, as in /a/b"))?;
            Ok(Some(path_of(text)))
        };
        let whole = match map.get("whole") {
            None => None,
            Some(Value::Object(parts)) => {
                let part = |(part, at): (&String, &Value)| {
                    let at = at.as_str().ok_or("the parts of `whole` are texts")?;
                    Ok::<_, String>((part.clone(), at.to_owned()))
                };
                let parts: BTreeMap<String, String> =
                    parts.iter().map(part).collect::<Result<_, _>>()?;
                if !["name", "type", "value"].iter().all(|part| parts.contains_key(*part)) {
                    return Err("`whole` says where `name`, `type` and `value` are".to_owned());
                }
                if list == "writes" && !matches!(body, Body::Form(Shape::Fields(_))) {
                    return Err("`whole` of `writes` is for a `form`".to_owned());
                }
                Some(parts)
            }
            Some(_) => return Err("`whole` is a mapping".to_owned()),
        };
        let keep = match map.get("keep") {
            None => Vec::new(),
            Some(Value::Array(paths)) => {
                paths.iter().filter_map(Value::as_str).map(path_of).collect()
            }
            Some(_) => return Err("`keep` is a list of paths".to_owned()),
        };
        let is_named = |hole: Hole| {
            matches!(hole, Hole::Name | Hole::Relative | Hole::Owner | Hole::NameLabel)
        };
        let mut holes = Vec::new();
        path.iter().for_each(|text| holes.extend(text.hole));
        if let Query::These(fields) = &query {
            fields.iter().for_each(|field| field.shape.holes(&mut holes));
        }
        if let Body::Json(shape) | Body::Form(shape) | Body::Xml(shape) = &body {
            shape.holes(&mut holes);
        }
        if list != "writes" && holes.iter().any(|hole| matches!(hole, Hole::Set | Hole::There)) {
            return Err("{set} and {there} are for `writes`".to_owned());
        }
        Ok(Self {
            line: match raw {
                Value::String(at) => at.clone(),
                raw => raw.to_string(),
            },
            method: method.to_owned(),
            base,
            path,
            query,
            headers,
            body,
            replaces: map.get("replaces").and_then(Value::as_bool).unwrap_or(false)
                || holes.contains(&Hole::Set),
            is_named: holes.iter().any(|hole| is_named(*hole)),
            each: path_at("each")?.unwrap_or_default(),
            name: path_at("name")?,
            kind: path_at("type")?,
            value: path_at("value")?,
            id: path_at("id")?,
            zone: path_at("zone")?,
            zone_id: path_at("zone-id")?,
            whole,
            is_write: list == "writes",
            keep,
        })
    }

    /// Whether the rule is about such requests at all: method, base, and what is fixed of the path.
    fn is_for(&self, method: &str, at: &Place) -> bool {
        // A HEAD is a GET whose answer nobody sees.
        let is_method = self.method == method || (self.method == "GET" && method == "HEAD");
        let is_base = self.base.as_ref().is_none_or(|base| *base == at.base);
        let path = match self.base {
            Some(_) => Some(at.path.as_slice()),
            None => at.path.len().checked_sub(self.path.len()).and_then(|from| at.path.get(from..)),
        };
        is_method
            && is_base
            && path.is_some_and(|path| {
                path.len() == self.path.len()
                    && self
                        .path
                        .iter()
                        .zip(path)
                        .all(|(text, segment)| text.around(segment).is_some())
            })
    }
}

impl Field {
    fn parse(name: &str, raw: &Value) -> Result<Self, String> {
        let (name, is_optional) = match name.strip_suffix('?') {
            Some(name) => (name, true),
            None => (name, false),
        };
        Ok(Self { name: name.to_owned(), is_optional, shape: Shape::parse(raw)? })
    }
}

impl Shape {
    fn parse(raw: &Value) -> Result<Self, String> {
        Ok(match raw {
            Value::String(text) => Self::Text(Text::parse(text)?),
            Value::Array(list) => match list.as_slice() {
                [] => Self::Exact(raw.clone()),
                [each] => Self::Each(Box::new(Self::parse(each)?)),
                _ => return Err("a list has one shape, which all items have".to_owned()),
            },
            Value::Object(map) => {
                let fields = map.iter().map(|(name, raw)| Field::parse(name, raw));
                Self::Fields(fields.collect::<Result<_, _>>()?)
            }
            exact => Self::Exact(exact.clone()),
        })
    }

    fn holes(&self, into: &mut Vec<Hole>) {
        match self {
            Self::Exact(_) => {}
            Self::Text(text) => into.extend(text.hole),
            Self::Each(shape) => shape.holes(into),
            Self::Fields(fields) => fields.iter().for_each(|field| field.shape.holes(into)),
        }
    }
}

impl Text {
    fn parse(raw: &str) -> Result<Self, String> {
        let fixed = || Ok(Self { before: raw.to_owned(), hole: None, after: String::new() });
        // `{{secret:…}}` and its like are texts of their own.
        if raw.contains("{{") {
            return fixed();
        }
        let Some((before, rest)) = raw.split_once('{') else { return fixed() };
        let (name, after) = rest.split_once('}').ok_or_else(|| format!("{raw:?} has no `}}`"))?;
        let hole = HOLES.iter().find(|(known, _)| *known == name).map(|(_, hole)| *hole);
        let names = || HOLES.map(|(name, _)| name).join(", ");
        let hole = hole.ok_or_else(|| format!("there is no {{{name}}}; there are: {}", names()))?;
        if after.contains('{') {
            return Err(format!("{raw:?} has more than one hole"));
        }
        Ok(Self { before: before.to_owned(), hole: Some(hole), after: after.to_owned() })
    }

    /// What stands in the hole of `text`; none when what is around it differs.
    fn around<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self.hole {
            None => (text == self.before).then_some(""),
            Some(_) => text.strip_prefix(self.before.as_str())?.strip_suffix(self.after.as_str()),
        }
    }
}

/// A URL taken apart; everything decoded.
struct Place {
    base: String,
    path: Vec<String>,
    query: Vec<(String, String)>,
}

impl Place {
    fn parse(url: &str) -> Result<Self, String> {
        let (url, query) = url.split_once('?').unwrap_or((url, ""));
        let start = url.find("://").map_or(0, |at| at + 3);
        let end =
            url.get(start..).and_then(|rest| rest.find('/')).map_or(url.len(), |at| start + at);
        let (base, path) = url.split_at_checked(end).unwrap_or((url, ""));
        let path = path.strip_prefix('/').unwrap_or(path).split('/').map(|it| decoded(it, false));
        Ok(Self {
            base: base.to_ascii_lowercase(),
            path: path.collect::<Result<_, _>>()?,
            query: pairs(query)?,
        })
    }
}

struct Context<'a> {
    order: &'a Order,
    config: &'a Value,
}

impl Context<'_> {
    /// Whether a request fits a rule, and the body to send instead; `set` gets what stands in
    /// `{set}`.
    fn fits(
        &self,
        rule: &Rule,
        asked: &Asked<'_>,
        at: &Place,
        set: &mut Vec<String>,
    ) -> Result<Option<Vec<u8>>, String> {
        let skipped = at.path.len().saturating_sub(rule.path.len());
        for (text, segment) in rule.path.iter().zip(at.path.iter().skip(skipped)) {
            self.text(text, segment, set).map_err(|why| format!("in its path, {why}"))?;
        }
        if let Query::These(fields) = &rule.query {
            let given = as_map(&at.query)?;
            self.fields(fields, &given, set).map_err(|why| format!("in its query, {why}"))?;
        }
        for (name, text) in &rule.headers {
            let mut named = asked.headers.iter().filter(|(known, _)| known == name);
            match (named.next(), named.next()) {
                (Some((_, value)), None) => {
                    self.text(text, value, set).map_err(|why| format!("in {name}, {why}"))?;
                }
                _ => return Err(format!("it needs the field {name} once")),
            }
        }
        let within = |why: String| format!("in its body, {why}");
        // A server that took it for something else would find something else in it.
        let is_a = |types: &[&str]| match media_type(asked) {
            Some(media) if types.contains(&media.as_str()) => Ok(()),
            _ => Err(format!("its content-type is not {} in UTF-8", types.join(" or "))),
        };
        match &rule.body {
            Body::Free => Ok(None),
            Body::None if asked.body.is_empty() => Ok(None),
            Body::None => Err("it has a body".to_owned()),
            Body::Json(shape) => {
                is_a(&["application/json"])?;
                let body: Value = serde_json::from_slice(asked.body)
                    .map_err(|cause| format!("its body is no JSON: {cause}"))?;
                self.shape(shape, &body, set).map_err(within)?;
                // Of a key that is there twice, a server could take the other.
                Ok(Some(body.to_string().into_bytes()))
            }
            Body::Form(shape) => {
                is_a(&["application/x-www-form-urlencoded"])?;
                let text = std::str::from_utf8(asked.body).map_err(|_| "its body is no text")?;
                let mut given = as_map(&pairs(text)?)?;
                let parts = rule.whole.as_ref().filter(|_| rule.is_write);
                let records = parts.map(|parts| numbered(&mut given, parts)).transpose()?;
                self.shape(shape, &Value::Object(given), set).map_err(within)?;
                if let Some(records) = records {
                    self.order.may_rewrite(&records)?;
                }
                Ok(None)
            }
            Body::Xml(shape) => {
                is_a(&["text/xml", "application/xml"])?;
                let text = std::str::from_utf8(asked.body).map_err(|_| "its body is no text")?;
                let body = xml(text).ok_or("its body is no plain XML")?;
                self.shape(shape, &body, set).map_err(within)?;
                Ok(None)
            }
        }
    }

    fn shape(&self, shape: &Shape, given: &Value, set: &mut Vec<String>) -> Result<(), String> {
        match shape {
            Shape::Exact(wanted) if wanted == given => Ok(()),
            Shape::Exact(wanted) => Err(format!("{} is not {wanted}", shown(&given.to_string()))),
            Shape::Text(text) => match (text.hole, given) {
                (Some(Hole::Any), _) => Ok(()),
                (Some(Hole::Value | Hole::Set | Hole::There), Value::Array(_)) => {
                    let given = joined(given).ok_or("a value is not text")?;
                    self.text(text, &given, set)
                }
                _ => {
                    let given = scalar(given)
                        .ok_or_else(|| format!("{} is not {text}", shown(&given.to_string())))?;
                    self.text(text, &given, set)
                }
            },
            Shape::Each(shape) => match given {
                Value::Array(items) => {
                    items.iter().try_for_each(|item| self.shape(shape, item, set))
                }
                // XML has no lists, only elements that come again.
                single => self.shape(shape, single, set),
            },
            Shape::Fields(fields) => match given {
                Value::Object(given) => self.fields(fields, given, set),
                other => Err(format!("{} is no object", shown(&other.to_string()))),
            },
        }
    }

    fn fields(
        &self,
        fields: &[Field],
        given: &Map<String, Value>,
        set: &mut Vec<String>,
    ) -> Result<(), String> {
        if let Some(name) = given.keys().find(|name| !fields.iter().any(|it| it.name == **name)) {
            return Err(format!("{} is not among what such a request has", shown(name)));
        }
        for field in fields {
            match given.get(&field.name) {
                Some(given) => self
                    .shape(&field.shape, given, set)
                    .map_err(|why| format!("{}: {why}", field.name))?,
                None if field.is_optional => {}
                None => return Err(format!("{} is missing", field.name)),
            }
        }
        Ok(())
    }

    fn text(&self, text: &Text, given: &str, set: &mut Vec<String>) -> Result<(), String> {
        let Some(inner) = text.around(given) else {
            return Err(format!("{} is not {text}", shown(given)));
        };
        let order = self.order;
        let Some(hole) = text.hole else { return Ok(()) };
        let label = |name: &str| name.split('.').next() == Some(inner) && !inner.is_empty();
        let relative = order.relative();
        let fits = match hole {
            Hole::Name => !order.name.is_empty() && inner == order.name,
            Hole::NameLabel => label(&order.name),
            Hole::Relative => relative == Some(inner),
            Hole::Owner => match relative {
                Some("") => inner == "@",
                relative => relative == Some(inner),
            },
            Hole::Zone => {
                (!order.zone.is_empty() && inner == order.zone)
                    || order.candidates.iter().any(|candidate| candidate == inner)
            }
            Hole::ZoneLabel => {
                (!order.zone.is_empty() && label(&order.zone))
                    || order.candidates.iter().any(|candidate| label(candidate))
            }
            Hole::ZoneRest => {
                let is_rest = |zone: &str| zone.split_once('.').is_some_and(|it| it.1 == inner);
                is_rest(&order.zone) || order.candidates.iter().any(|it| is_rest(it))
            }
            Hole::Kept => order.kept.iter().any(|kept| kept == inner),
            Hole::ZoneId => order.zone_ids.contains(inner) || holds(self.config, inner),
            Hole::Id => order.ids.contains(inner),
            Hole::Value => order.values.iter().any(|own| own == inner || quoted(own) == inner),
            Hole::Set => {
                set.push(inner.to_owned());
                true
            }
            Hole::There => {
                let value = unquoted(inner);
                order.there.as_ref().is_some_and(|there| there.contains(&value))
            }
            Hole::Number => inner.len() < 10 && inner.parse::<u32>().is_ok(),
            Hole::Bool => matches!(inner, "true" | "false"),
            Hole::Text => !inner.contains("{{"),
            Hole::Any => true,
            Hole::Config => holds(self.config, inner),
        };
        if fits { Ok(()) } else { Err(format!("{} is not {text} of this order", shown(given))) }
    }
}

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hole = HOLES.iter().find(|(_, hole)| Some(*hole) == self.hole);
        match hole {
            Some((name, _)) => write!(f, "{}{{{name}}}{}", self.before, self.after),
            None => write!(f, "{:?}", self.before),
        }
    }
}

/// The one media type of a body that is in UTF-8 and not packed.
fn media_type(asked: &Asked<'_>) -> Option<String> {
    if asked.headers.iter().any(|(name, _)| name == "content-encoding") {
        return None;
    }
    let types = asked.headers.iter().filter(|(name, _)| name == "content-type");
    let mut types = types.map(|(_, value)| value.to_ascii_lowercase());
    let (media, None) = (types.next()?, types.next()) else { return None };
    let mut parts = media.split(';').map(str::trim);
    let media = parts.next()?.to_owned();
    parts.all(|part| matches!(part, "charset=utf-8" | "charset=\"utf-8\"")).then_some(media)
}

/// Whether the operator wrote this text somewhere in `config:`.
fn holds(config: &Value, text: &str) -> bool {
    match config {
        Value::Array(items) => items.iter().any(|item| holds(item, text)),
        Value::Object(map) => map.values().any(|value| holds(value, text)),
        scalar => !text.is_empty() && self::scalar(scalar).as_deref() == Some(text),
    }
}

/// What stands at a path: keys of objects, and every item of the lists on the way.
fn select<'v>(value: &'v Value, path: &[String]) -> Vec<&'v Value> {
    let mut found = vec![value];
    for key in path {
        let mut next = Vec::new();
        for value in found {
            match value {
                Value::Array(items) => next.extend(items.iter().filter_map(|item| item.get(key))),
                value => next.extend(value.get(key)),
            }
        }
        found = next;
    }
    found
}

/// What stands at a path, lists taken apart.
fn items<'v>(value: &'v Value, path: &[String]) -> Vec<&'v Value> {
    let mut items = Vec::new();
    for found in select(value, path) {
        match found {
            Value::Array(inner) => items.extend(inner),
            single => items.push(single),
        }
    }
    items
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(bool) => Some(bool.to_string()),
        _ => None,
    }
}

/// A text, or one in several strings.
fn joined(value: &Value) -> Option<String> {
    match value {
        Value::Array(parts) => {
            let parts: Option<Vec<&str>> = parts.iter().map(Value::as_str).collect();
            Some(parts?.concat())
        }
        value => scalar(value),
    }
}

/// An answer as values: JSON, or XML.
fn read(body: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(body).ok()?.trim_start_matches('\u{feff}').trim();
    match text.starts_with('<') {
        true => xml(text),
        false => serde_json::from_str(text).ok(),
    }
}

/// Plain XML as values: elements are keys, attributes `@name`; what comes again is a list. None for
/// anything that two readers could understand in different ways: document types, comments, CDATA,
/// instructions but the first, entities but the five, text beside elements.
fn xml(text: &str) -> Option<Value> {
    let text = text.trim();
    let text = match text.strip_prefix("<?xml") {
        Some(rest) => {
            let (declared, rest) = rest.split_once("?>")?;
            let encoding = declared.to_ascii_lowercase();
            let is_utf8 =
                ["encoding=\"utf-8\"", "encoding='utf-8'"].iter().any(|it| encoding.contains(it));
            if encoding.contains("encoding") && !is_utf8 {
                return None;
            }
            rest.trim_start()
        }
        None => text,
    };
    let mut rest = text;
    let (name, value) = element(&mut rest, 0)?;
    rest.trim().is_empty().then(|| Value::Object(Map::from_iter([(name, value)])))
}

fn element(rest: &mut &str, depth: usize) -> Option<(String, Value)> {
    let inside = rest.strip_prefix('<')?;
    let end = inside.find('>')?;
    let (tag, after) = inside.split_at_checked(end)?;
    *rest = after.strip_prefix('>')?;
    let (tag, is_empty) = match tag.strip_suffix('/') {
        Some(tag) => (tag, true),
        None => (tag, false),
    };
    let (name, mut attributes) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
    let is_name = |name: &str| {
        let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':' | '.');
        !name.is_empty() && name.chars().all(is_fine)
    };
    if depth > 32 || !is_name(name) {
        return None;
    }
    let mut map = Map::new();
    while let Some((attribute, value)) = attributes.trim_start().split_once('=') {
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let (value, after) = value.get(1..)?.split_once(quote)?;
        let key = format!("@{attribute}");
        if !is_name(attribute) || map.insert(key, Value::from(plain(value)?)).is_some() {
            return None;
        }
        attributes = after;
    }
    if !attributes.trim().is_empty() {
        return None;
    }
    if is_empty {
        let value = if map.is_empty() { Value::from("") } else { Value::Object(map) };
        return Some((name.to_owned(), value));
    }
    let closing = format!("</{name}>");
    let start = rest.find('<')?;
    let (text, _) = rest.split_at_checked(start)?;
    if let Some(after) = rest.get(start..)?.strip_prefix(closing.as_str()) {
        let text = plain(text)?;
        *rest = after;
        if map.is_empty() {
            return Some((name.to_owned(), Value::from(text)));
        }
        map.insert("$".to_owned(), Value::from(text));
        return Some((name.to_owned(), Value::Object(map)));
    }
    loop {
        *rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(closing.as_str()) {
            *rest = after;
            return Some((name.to_owned(), Value::Object(map)));
        }
        let (child, value) = element(rest, depth + 1)?;
        match map.get_mut(&child) {
            None => drop(map.insert(child, value)),
            Some(Value::Array(items)) => items.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
}

/// Text with the five entities.
fn plain(text: &str) -> Option<String> {
    let mut parts = text.split('&');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (entity, after) = part.split_once(';')?;
        plain.push(match entity {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            number => {
                let code = match number.strip_prefix("#x") {
                    Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                    None => number.strip_prefix('#')?.parse().ok()?,
                };
                char::from_u32(code)?
            }
        });
        plain.push_str(after);
    }
    Some(plain)
}

/// The records of a form that numbers its parameters from 1 (`HostName1`, `Address1`, `HostName2`…),
/// which are taken out of it.
fn numbered(
    given: &mut Map<String, Value>,
    parts: &BTreeMap<String, String>,
) -> Result<Vec<Whole>, String> {
    let mut records = Vec::new();
    loop {
        let number = records.len() + 1;
        let mut record = Whole::new();
        for (part, prefix) in parts {
            if let Some(value) = given.remove(&format!("{prefix}{number}")) {
                record.insert(part.clone(), scalar(&value).unwrap_or_default());
            }
        }
        match record.len() {
            0 => return Ok(records),
            some if some == parts.len() => records.push(record),
            _ => return Err(format!("record {number} has not all of its parts")),
        }
    }
}

/// The keys of a path, as in `/a/b`.
fn path_of(text: &str) -> Vec<String> {
    text.split('/').filter(|it| !it.is_empty()).map(str::to_owned).collect()
}

/// A query or form. Signs that servers read in different ways are refused.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decoded(name, true)?, decoded(value, true)?))
    };
    text.split('&').map(pair).collect()
}

fn as_map(pairs: &[(String, String)]) -> Result<Map<String, Value>, String> {
    let mut map = Map::new();
    for (name, value) in pairs {
        if map.insert(name.clone(), Value::from(value.as_str())).is_some() {
            return Err(format!("{} is there twice", shown(name)));
        }
    }
    Ok(map)
}

fn decoded(text: &str, is_form: bool) -> Result<String, String> {
    let malformed = || format!("{} is not percent-encoded as it should be", shown(text));
    if is_form && text.contains(['+', ';']) {
        return Err(malformed());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next(), rest.next()].map(|digit| digit.unwrap_or(b'x'));
        let digits = std::str::from_utf8(&digits).map_err(|_| malformed())?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(malformed());
        }
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| malformed())?);
    }
    String::from_utf8(bytes).map_err(|_| malformed())
}

/// The text of a TXT record in the quoted form of zone files (RFC 1035, section 5.1).
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for (position, byte) in text.bytes().enumerate() {
        if position > 0 && position % 255 == 0 {
            quoted.push_str("\" \"");
        }
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' '..=b'~' => quoted.push(char::from(byte)),
            _ => drop(write!(quoted, "\\{byte:03}")),
        }
    }
    quoted.push('"');
    quoted
}

/// The text of a TXT record that may be in that form.
fn unquoted(content: &str) -> String {
    let content = content.trim();
    if !content.starts_with('"') {
        return content.to_owned();
    }
    let (mut text, mut is_inside) = (Vec::new(), false);
    let mut bytes = content.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => is_inside = !is_inside,
            b'\\' => match bytes.next() {
                Some(first @ b'0'..=b'9') => {
                    let mut digit = || bytes.next().unwrap_or(b'0').wrapping_sub(b'0');
                    let (tens, ones) = (digit(), digit());
                    let hundreds = (first - b'0').wrapping_mul(100);
                    text.push(hundreds.wrapping_add(tens.wrapping_mul(10)).wrapping_add(ones));
                }
                Some(escaped) => text.push(escaped),
                None => {}
            },
            _ if is_inside => text.push(byte),
            _ => {}
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// A text for a message, cut.
fn shown(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

/// The keys of a rule.
const KEYS: [&str; 15] = [
    "at", "headers", "json", "form", "xml", "replaces", "each", "name", "type", "value", "id",
    "zone", "zone-id", "whole", "keep",
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn guard() -> Guard {
        Guard::parse(&json!({
            "reads": [
                {"at": "GET https://a.example/zones?*", "each": "/result", "zone": "/name", "zone-id": "/id"},
                {"at": "GET https://a.example/zones/{zone-id}/records?name={name}", "each": "/result",
                 "name": "/name", "type": "/type", "value": "/content", "id": "/id"},
                {"at": "GET https://a.example/sets/{zone}/{owner}", "each": "/values", "value": ""},
                {"at": "POST https://a.example/list"},
            ],
            "writes": [
                {"at": "POST https://a.example/zones/{zone-id}/records", "id": "/result/id",
                 "json": {"type": "TXT", "name": "{name}", "content": "{value}", "ttl?": "{number}"}},
                {"at": "DELETE https://a.example/zones/{zone-id}/records/{id}"},
                {"at": "PUT https://a.example/sets/{zone}/{owner}", "json": {"values": ["{set}"]}},
                {"at": "DELETE https://a.example/sets/{zone}/{owner}", "replaces": true},
                {"at": "GET https://a.example/update?token={{secret:t}}&domains={zone-label}&txt={value}"},
                {"at": "POST https://a.example/xml", "xml": {"Change": {"@xmlns": "x", "Record": [{"Name": "{name}.", "Value": "{value}"}]}}},
                {"at": "POST https://a.example/form", "form": {"name": "{relative}", "txt": "{value}"}},
                {"at": "POST */present", "json": {"fqdn": "{name}.", "value": "{value}"}},
            ],
            "also": ["POST https://a.example/zones/{zone-id}/refresh"],
        }))
        .unwrap()
    }

    fn order() -> Order {
        Order::zone("example.com", ["z1".to_owned()]).records(
            "_acme-challenge.example.com",
            &["own".to_owned(), "other-own".to_owned()],
            [],
        )
    }

    fn check(order: &Order, method: &str, url: &str, body: &str) -> Result<Passed, String> {
        let url = if url.starts_with("http") {
            url.to_owned()
        } else {
            format!("https://a.example{url}")
        };
        let media = match body.as_bytes().first() {
            Some(b'<') => "text/xml; charset=UTF-8",
            Some(b'n') if body.starts_with("name=") => "application/x-www-form-urlencoded",
            _ => "application/json",
        };
        let headers = [("content-type".to_owned(), media.to_owned())];
        let asked = Asked { method, url: &url, headers: &headers, body: body.as_bytes() };
        guard().check(order, &asked, &json!({"zone-id": "from-config"}))
    }

    #[test]
    fn what_the_order_is_for_passes() {
        let order = order();
        let good =
            r#"{"type":"TXT","name":"_acme-challenge.example.com","content":"own","ttl":60}"#;
        for (method, url, body) in [
            ("POST", "/zones/z1/records", good),
            ("POST", "/zones/from-config/records", good),
            ("GET", "/anything?x=1", ""),
            ("POST", "/list", "whatever"),
            ("POST", "/zones/z1/refresh", ""),
            ("GET", "/update?token={{secret:t}}&domains=example&txt=own", ""),
            (
                "POST",
                "/xml",
                "<?xml version=\"1.0\"?><Change xmlns=\"x\">\n <Record><Name>_acme-challenge.example.com.</Name><Value>&quot;own&quot;</Value></Record></Change>",
            ),
            ("POST", "/form", "name=_acme%2Dchallenge&txt=other-own"),
            (
                "POST",
                "http://b.example/deep/present",
                r#"{"fqdn":"_acme-challenge.example.com.","value":"own"}"#,
            ),
        ] {
            check(&order, method, url, body).unwrap_or_else(|why| panic!("{method} {url}: {why}"));
        }
        let quoted = good.replace("\"own\"", "\"\\\"own\\\"\"");
        check(&order, "POST", "/zones/z1/records", &quoted).unwrap();
    }

    #[test]
    fn anything_else_is_refused() {
        let order = order();
        for (method, url, body, why) in [
            (
                "POST",
                "/zones/z1/records",
                r#"{"type":"A","name":"_acme-challenge.example.com","content":"own"}"#,
                "type",
            ),
            (
                "POST",
                "/zones/z1/records",
                r#"{"type":"TXT","name":"www.example.com","content":"own"}"#,
                "www.example.com",
            ),
            (
                "POST",
                "/zones/z1/records",
                r#"{"type":"TXT","name":"_acme-challenge.example.com","content":"v=spf1"}"#,
                "v=spf1",
            ),
            (
                "POST",
                "/zones/z1/records",
                r#"{"type":"TXT","name":"_acme-challenge.example.com","content":"own","proxied":true}"#,
                "proxied",
            ),
            (
                "POST",
                "/zones/z1/records",
                r#"{"type":"TXT","Type":"A","name":"_acme-challenge.example.com","content":"own"}"#,
                "Type",
            ),
            (
                "POST",
                "/zones/z1/records",
                r#"{"type":"TXT","name":"_acme-challenge.example.com"}"#,
                "content is missing",
            ),
            (
                "POST",
                "/zones/z1/records",
                r#"[{"type":"TXT","name":"_acme-challenge.example.com","content":"own"}]"#,
                "no object",
            ),
            ("POST", "/zones/z1/records", "nonsense", "no JSON"),
            (
                "POST",
                "/zones/z2/records",
                r#"{"type":"TXT","name":"_acme-challenge.example.com","content":"own"}"#,
                "z2",
            ),
            ("DELETE", "/zones/z1/records/7", "", "\"7\" is not {id}"),
            ("DELETE", "/zones/z1", "", "no rule"),
            ("PATCH", "/zones/z1/records/7", "{}", "no rule"),
            (
                "PUT",
                "/sets/example.com/_acme-challenge",
                r#"{"values":["own"]}"#,
                "without having read it",
            ),
            ("DELETE", "/sets/example.com/_acme-challenge", "", "without having read it"),
            ("PUT", "/sets/example.com/www", r#"{"values":["own"]}"#, "www"),
            (
                "PUT",
                "/sets/other.example/_acme-challenge",
                r#"{"values":["own"]}"#,
                "other.example",
            ),
            ("GET", "/update?token={{secret:t}}&domains=victim&txt=own", "", "victim"),
            ("GET", "/update?token={{secret:t}}&domains=example&txt=own&clear=true", "", "clear"),
            (
                "GET",
                "/update?token={{secret:t}}&domains=example&domains=victim&txt=own",
                "",
                "twice",
            ),
            ("GET", "/update", "", "missing"),
            ("GET", "/x?_method=DELETE", "", "another method"),
            ("POST", "/zones/z1/refresh", "x", "has a body"),
            (
                "POST",
                "/xml",
                "<Change xmlns=\"x\"><Record><Name>a.</Name><Value>own</Value></Record></Change>",
                "Name",
            ),
            (
                "POST",
                "/xml",
                "<Change xmlns=\"x\"><!-- --><Record></Record></Change>",
                "no plain XML",
            ),
            ("POST", "/xml", "<!DOCTYPE a [<!ENTITY x \"y\">]><Change/>", "no plain XML"),
            ("POST", "/form", "name=_acme-challenge&txt=own;name=www", "percent-encoded"),
            ("POST", "/form", "name=_acme-challenge&txt=own&name=www", "twice"),
            (
                "POST",
                "http://b.example/present/x",
                r#"{"fqdn":"_acme-challenge.example.com.","value":"own"}"#,
                "no rule",
            ),
        ] {
            let refused = check(&order, method, url, body).err();
            let refused = refused.unwrap_or_else(|| panic!("{method} {url} {body} passes"));
            assert!(refused.contains(why), "{method} {url} {body}: {refused}");
        }
        let headers = [("x-http-method-override".to_owned(), "DELETE".to_owned())];
        let asked =
            Asked { method: "GET", url: "https://a.example/x", headers: &headers, body: b"" };
        assert!(guard().check(&order, &asked, &Value::Null).is_err());
        // A body that is called something else could be read as something else.
        let good = r#"{"type":"TXT","name":"_acme-challenge.example.com","content":"own"}"#;
        for headers in [
            &[][..],
            &[("content-type", "application/x-www-form-urlencoded")],
            &[("content-type", "application/json; charset=utf-7")],
            &[("content-type", "application/json"), ("content-type", "text/plain")],
            &[("content-type", "application/json"), ("content-encoding", "gzip")],
        ] {
            let headers: Vec<(String, String)> =
                headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            let url = "https://a.example/zones/z1/records";
            let asked = Asked { method: "POST", url, headers: &headers, body: good.as_bytes() };
            let refused = guard().check(&order, &asked, &Value::Null).unwrap_err();
            assert!(refused.contains("content-type"), "{headers:?}: {refused}");
        }
        let packed = "<?xml version=\"1.0\" encoding=\"IBM037\"?><Change xmlns=\"x\"/>";
        assert!(check(&order, "POST", "/xml", packed).unwrap_err().contains("no plain XML"));
        // Outside of `present` and `cleanup` nothing is changed at all.
        let good = r#"{"type":"TXT","name":"","content":""}"#;
        let early = Order::zones(&["example.com".to_owned()]);
        assert!(check(&early, "POST", "/zones/from-config/records", good).is_err());
    }

    #[test]
    fn a_key_that_is_there_twice_is_sent_once() {
        let body = r#"{"name":"www.example.com","type":"TXT","name":"_acme-challenge.example.com","content":"own"}"#;
        let sent = check(&order(), "POST", "/zones/z1/records", body).unwrap().body.unwrap();
        let sent = String::from_utf8(sent).unwrap();
        assert!(!sent.contains("www") && sent.contains("_acme-challenge"), "{sent}");
    }

    #[test]
    fn ids_have_to_be_proven() {
        let guard = guard();
        let mut order = order();
        let passed =
            check(&order, "GET", "/zones/z1/records?name=_acme-challenge.example.com", "").unwrap();
        let answer = json!({"result": [
            {"id": 1, "name": "_acme-challenge.example.com", "type": "TXT", "content": "\"own\""},
            {"id": 2, "name": "_acme-challenge.example.com", "type": "TXT", "content": "foreign"},
            {"id": 3, "name": "www.example.com", "type": "TXT", "content": "own"},
            {"id": 4, "name": "_acme-challenge.example.com", "type": "A", "content": "own"},
        ]});
        guard.learn(&mut order, &passed, 200, answer.to_string().as_bytes());
        assert_eq!(order.ids(), ["1"]);
        assert!(check(&order, "DELETE", "/zones/z1/records/1", "").is_ok());
        for id in 2..5 {
            assert!(check(&order, "DELETE", &format!("/zones/z1/records/{id}"), "").is_err());
        }
        // One that a write answered with is own as well; an error's is not.
        let body = r#"{"type":"TXT","name":"_acme-challenge.example.com","content":"own"}"#;
        let passed = check(&order, "POST", "/zones/z1/records", body).unwrap();
        guard.learn(&mut order, &passed, 500, br#"{"result":{"id":"8"}}"#);
        guard.learn(&mut order, &passed, 201, br#"{"result":{"id":"9"}}"#);
        assert_eq!(order.ids(), ["1", "9"]);
        // A zone's id comes with the zone's name.
        let mut early = Order::zones(&["a.example.com".to_owned(), "example.com".to_owned()]);
        let passed = check(&early, "GET", "/zones?page=2", "").unwrap();
        let zones = json!({"result": [{"id": "z9", "name": "example.com."}, {"id": "v", "name": "victim.example"}]});
        guard.learn(&mut early, &passed, 200, zones.to_string().as_bytes());
        assert_eq!(early.zone_ids("example.com"), ["z9"]);
        assert_eq!(early.zone_ids("victim.example"), [""; 0]);
    }

    #[test]
    fn a_record_set_keeps_what_is_somebody_elses() {
        let guard = guard();
        let mut order = order();
        let url = "/sets/example.com/_acme-challenge";
        let passed = check(&order, "GET", url, "").unwrap();
        guard.learn(&mut order, &passed, 200, br#"{"values":["\"foreign\"","own"]}"#);
        for (values, is_fine) in [
            (r#"["foreign","own","other-own"]"#, true),
            (r#"["\"foreign\""]"#, true),
            (r#"["own"]"#, false),
            (r#"[]"#, false),
            (r#"["foreign","own","more"]"#, false),
        ] {
            let body = format!("{{\"values\":{values}}}");
            assert_eq!(check(&order, "PUT", url, &body).is_ok(), is_fine, "{values}");
        }
        assert!(check(&order, "DELETE", url, "").is_err());
        guard.learn(&mut order, &passed, 404, b"");
        check(&order, "DELETE", url, "").unwrap();
        // A question with more in it is not the one that the rule is about.
        let mut order = self::order();
        let passed = check(&order, "GET", &format!("{url}?type=A"), "").unwrap();
        guard.learn(&mut order, &passed, 404, b"");
        assert!(check(&order, "DELETE", url, "").is_err());
    }

    #[test]
    fn a_whole_zone_is_rewritten_with_nothing_else_changed() {
        let whole = |name: &str, kind: &str, value: &str, ttl: &str| json!({"name": name, "type": kind, "value": value, "ttl": ttl});
        let guard = Guard::parse(&json!({
            "reads": [{"at": "POST https://a.example/", "form": {"do": "get", "sld": "{zone-label}", "tld": "{zone-rest}"},
                       "each": "/zone/hosts", "keep": ["/zone/mail"],
                       "whole": whole("/n", "/t", "/v", "/ttl")}],
            "writes": [{"at": "POST https://a.example/", "form": {"do": "set", "sld": "{zone-label}", "tld": "{zone-rest}", "mail?": "{kept}"},
                        "whole": whole("Host", "Type", "Address", "TTL")}],
        }))
        .unwrap();
        let headers = [("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned())];
        let check = |order: &Order, body: &str| {
            let url = "https://a.example/";
            let asked = Asked { method: "POST", url, headers: &headers, body: body.as_bytes() };
            guard.check(order, &asked, &Value::Null)
        };
        let www = "Host1=www&Type1=A&Address1=192.0.2.1&TTL1=1800";
        let own = "&Host2=_acme-challenge&Type2=TXT&Address2=own&TTL2=60";
        let set = format!("do=set&sld=example&tld=com&{www}{own}");
        let mut order = order();
        assert!(check(&order, &set).unwrap_err().contains("without having read it"));
        assert!(check(&order, "do=get&sld=victim&tld=com").is_err());
        let read = check(&order, "do=get&sld=example&tld=com").unwrap();
        let answer = json!({"zone": {"mail": "MX", "hosts": [
            {"n": "www", "t": "A", "v": "192.0.2.1", "ttl": "1800"},
            {"n": "_acme-challenge", "t": "TXT", "v": "other-own", "ttl": "60"},
        ]}});
        guard.learn(&mut order, &read, 200, b"{\"error\": 1}");
        assert!(check(&order, &set).is_err(), "an error is no reading");
        guard.learn(&mut order, &read, 200, answer.to_string().as_bytes());
        for (body, why) in [
            (set.clone(), None),
            (format!("{set}&mail=MX"), None),
            (format!("do=set&sld=example&tld=com&{www}"), None),
            (format!("{set}&mail=FWD"), Some("FWD")),
            ("do=set&sld=example&tld=com".to_owned(), Some("would be lost")),
            (set.replace("192.0.2.1", "203.0.113.9"), Some("neither there nor of this order")),
            (set.replace("TTL1=1800", "TTL1=60"), Some("neither there nor of this order")),
            (set.replace("=own", "=v%3Dspf1"), Some("neither there nor of this order")),
            (set.replace("Type2=TXT", "Type2=CNAME"), Some("neither there nor of this order")),
            (set.replace("Host2=_acme-challenge", "Host2=x"), Some("neither there")),
            (set.replace("&TTL2=60", ""), Some("not all of its parts")),
            (format!("{set}&Host4=a&Type4=A&Address4=b&TTL4=1"), Some("not among what")),
            (format!("{set}&{}", www.replace("1=", "3=")), Some("more or less often")),
            (set.replace("tld=com", "tld=org"), Some("org")),
        ] {
            match (check(&order, &body), why) {
                (Ok(_), None) => {}
                (Err(told), Some(why)) => assert!(told.contains(why), "{body}: {told}"),
                (told, _) => panic!("{body}: {told:?}"),
            }
        }
        let passed = check(&order, &set).unwrap();
        guard.learn(&mut order, &passed, 200, b"{}");
        assert!(check(&order, &set).unwrap_err().contains("without having read it"));
        let early = Order::zones(&["example.com".to_owned()]);
        check(&early, "do=get&sld=example&tld=com").unwrap();
        assert!(check(&early, &set).is_err());
    }

    #[test]
    fn mistakes_in_rules_are_told() {
        for (raw, why) in [
            (json!([]), "expected a mapping"),
            (json!({"write": []}), "unknown key"),
            (json!({"writes": []}), "`writes` is missing"),
            (json!({"writes": [{"at": "POST"}]}), "METHOD URL"),
            (json!({"writes": ["POST https://a.example"]}), "no path"),
            (json!({"writes": ["POST https://a.example/{nam}"]}), "there is no {nam}"),
            (json!({"writes": ["POST https://a.example/{name}{zone}"]}), "more than one hole"),
            (json!({"writes": [{"at": "POST https://a.example/", "jsn": {}}]}), "unknown key"),
            (
                json!({"writes": ["GET https://a.example/"], "reads": ["GET https://a.example/{set}"]}),
                "for `writes`",
            ),
        ] {
            let told = Guard::parse(&raw).unwrap_err();
            assert!(told.contains(why), "{raw}: {told}");
        }
    }
}
