//! Whether a payload contains what is wanted of it: each key of the table with an equal value, tables in it likewise, lists
//! element by element; what else the payload has does not matter. A number is equal to another of the same value, however
//! either is written. Deliberately absent: where payloads come from (`convert`).

use serde_json::{Map, Number, Value};

/// The first thing in which a payload is not as wanted.
#[derive(Debug)]
pub(super) enum Difference<'a> {
    /// It is no table, or there is none.
    NoTable(Option<&'a Value>),
    /// It has not this key.
    Missing(String),
    /// This key has another value.
    Other {
        /// The key, with those that it lies in.
        key: String,
        /// What is wanted.
        wanted: &'a Value,
        /// What is there.
        found: &'a Value,
    },
}

/// The first difference, or none when the payload contains the table.
pub(super) fn difference<'a>(wanted: &'a Map<String, Value>, found: Option<&'a Value>) -> Option<Difference<'a>> {
    match found {
        Some(Value::Object(found)) => in_table(wanted, found),
        other => Some(Difference::NoTable(other)),
    }
}

fn in_table<'a>(wanted: &'a Map<String, Value>, found: &'a Map<String, Value>) -> Option<Difference<'a>> {
    wanted.iter().find_map(|(key, wanted)| match (wanted, found.get(key)) {
        (_, None) => Some(Difference::Missing(key.clone())),
        (Value::Object(wanted), Some(Value::Object(found))) => in_table(wanted, found).map(|inner| within(key, inner)),
        (wanted, Some(found)) if equal(wanted, found) => None,
        (wanted, Some(found)) => Some(Difference::Other { key: key.clone(), wanted, found }),
    })
}

/// A difference that lies in the value of `outer`.
fn within<'a>(outer: &str, inner: Difference<'a>) -> Difference<'a> {
    match inner {
        Difference::NoTable(found) => Difference::NoTable(found),
        Difference::Missing(key) => Difference::Missing(format!("{outer}.{key}")),
        Difference::Other { key, wanted, found } => Difference::Other { key: format!("{outer}.{key}"), wanted, found },
    }
}

/// Whether two values are the same; tables in lists must be equal as a whole.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => same_number(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        (a, b) => a == b,
    }
}

fn same_number(a: &Number, b: &Number) -> bool {
    match (a.is_f64(), b.is_f64()) {
        (true, true) => a.as_f64() == b.as_f64(),
        (false, false) => a == b,
        (true, false) => is_float(b, a),
        (false, true) => is_float(a, b),
    }
}

/// Whether a whole number is exactly this floating one.
fn is_float(whole: &Number, float: &Number) -> bool {
    let Some(float) = float.as_f64() else { return false };
    // Between -2^63 and 2^63 a floating number without a fraction is a whole one of 64 bits, exactly.
    let near = float.fract() == 0.0 && (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&float);
    near && whole.as_i64() == Some(float as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_payload_contains_a_table_when_each_key_has_an_equal_value() {
        fn check(wanted: Value, found: Value, contained: bool) {
            let table = wanted.as_object().expect("a table");
            assert_eq!(difference(table, Some(&found)).is_none(), contained, "{wanted} in {found}");
        }
        check(json!({ "a": 1 }), json!({ "a": 1, "b": 2 }), true);
        check(json!({ "a": 1, "b": 2 }), json!({ "a": 1 }), false);
        check(json!({ "a": 1 }), json!({ "a": "1" }), false);
        check(json!({ "a": { "b": 1 } }), json!({ "a": { "b": 1, "c": 2 } }), true);
        check(json!({ "a": { "b": 1 } }), json!({ "a": { "c": 2 } }), false);
        check(json!({ "a": { "b": 1 } }), json!({ "a": 1 }), false);
        check(json!({ "a": {} }), json!({ "a": { "b": 1 } }), true);
        check(json!({ "a": {} }), json!({ "a": [] }), false);
        check(json!({ "a": [1, { "b": 2 }] }), json!({ "a": [1, { "b": 2 }] }), true);
        check(json!({ "a": [1, { "b": 2 }] }), json!({ "a": [1, { "b": 2, "c": 3 }] }), false);
        check(json!({ "a": [1] }), json!({ "a": [1, 2] }), false);
        check(json!({ "a": 1 }), json!([{ "a": 1 }]), false);
        check(json!({ "a": false }), json!({ "a": null }), false);
    }

    #[test]
    fn numbers_are_equal_by_value() {
        fn check(wanted: &str, found: &str, same: bool) {
            let parse = |text: &str| serde_json::from_str::<Value>(text).expect("a number");
            assert_eq!(equal(&parse(wanted), &parse(found)), same, "{wanted} {found}");
            assert_eq!(equal(&parse(found), &parse(wanted)), same, "{found} {wanted}");
        }
        check("1", "1.0", true);
        check("1", "1e0", true);
        check("0.5", "5e-1", true);
        check("0", "-0.0", true);
        check("1", "1.5", false);
        check("9007199254740993", "9007199254740992.0", false);
        check("9223372036854775807", "9223372036854775808", false);
        check("9223372036854775807", "9.223372036854775807e18", false);
    }
}
