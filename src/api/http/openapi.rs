//! The API, described for machines: `openapi.yaml`, embedded.
//!
//! *Invariants:* the document names every path and method of the router, and no other.

use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::params::Params;
use super::reply::ApiError;

const DOCUMENT: &str = include_str!("openapi.yaml");

/// `GET /api/v1/openapi.yaml`. Nothing in the document means another thing in OpenAPI 3.2.
pub async fn openapi(params: Params) -> Result<Response, ApiError> {
    let version = match params.get("openapi_version") {
        None | Some("3.1") => "3.1.0",
        Some("3.2") => "3.2.0",
        Some(other) => {
            let problem = format!("OpenAPI {other:?} is not known, only 3.1 and 3.2");
            return Err(ApiError::parameter("openapi_version", problem));
        }
    };
    Ok(([(header::CONTENT_TYPE, "application/yaml; charset=utf-8")], written_in(version)).into_response())
}

fn written_in(version: &str) -> String {
    DOCUMENT.replacen("openapi: 3.1.0", &format!("openapi: {version}"), 1).replacen(
        "METROLITH_VERSION",
        env!("CARGO_PKG_VERSION"),
        1,
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn document() -> Value {
        serde_saphyr::from_str(&written_in("3.1.0")).unwrap()
    }

    /// Path, method and description of every operation.
    fn operations(document: &Value) -> Vec<(String, String, &Value)> {
        let paths = document["paths"].as_object().unwrap().iter();
        let methods = paths.flat_map(|(path, of)| of.as_object().unwrap().iter().map(move |(m, o)| (path, m, o)));
        methods.map(|(path, method, operation)| (path.clone(), method.clone(), operation)).collect()
    }

    /// What `super::super::router` is made of, read from its text: axum does not tell its routes.
    fn routes() -> BTreeSet<(String, String)> {
        let mut prefix = "";
        let mut found = BTreeSet::new();
        for line in include_str!("mod.rs").lines() {
            match line.split_once("fn ").map(|(_, name)| name.split_once('(').map_or(name, |(name, _)| name)) {
                Some("router") => prefix = "",
                Some("reading") => prefix = "/api/v1",
                Some("for_operators") => prefix = "/api/v1/admin",
                _ => {}
            }
            let Some((path, methods)) = line.trim().strip_prefix(".route(\"").and_then(|l| l.split_once("\", ")) else {
                assert!(!line.contains(".route("), "a route on several lines: {line}");
                continue;
            };
            for method in ["get", "post", "put", "delete"] {
                if methods.starts_with(&format!("{method}(")) || methods.contains(&format!(").{method}(")) {
                    assert!(found.insert((format!("{prefix}{path}"), method.to_owned())), "twice: {line}");
                }
            }
        }
        found
    }

    #[test]
    fn the_document_and_the_router_name_the_same() {
        let document = document();
        let described: BTreeSet<_> = operations(&document).into_iter().map(|(p, m, _)| (p, m)).collect();
        let routes = routes();
        assert!(routes.len() > 50, "{routes:?}");
        let (undescribed, unknown): (Vec<_>, Vec<_>) =
            (routes.difference(&described).collect(), described.difference(&routes).collect());
        assert!(undescribed.is_empty() && unknown.is_empty(), "not described: {undescribed:?}, unknown: {unknown:?}");
    }

    #[test]
    fn operations_are_whole() {
        let document = document();
        let mut ids = BTreeSet::new();
        for (path, method, operation) in operations(&document) {
            let at = format!("{method} {path}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{at}: its id is taken");
            assert!(operation["summary"].is_string() && operation["responses"].is_object(), "{at}");
            let tag = &operation["tags"][0];
            assert!(document["tags"].as_array().unwrap().iter().any(|t| t["name"] == *tag), "{at}: {tag}");
            let given = operation["parameters"].as_array().into_iter().flatten();
            let given: Vec<&Value> =
                given.map(|p| p["$ref"].as_str().map_or(p, |reference| referenced(&document, reference))).collect();
            let names: BTreeSet<_> = given.iter().map(|p| (p["in"].to_string(), p["name"].to_string())).collect();
            assert_eq!(names.len(), given.len(), "{at}: a parameter twice");
            let in_path =
                given.iter().filter(|p| p["in"] == "path").map(|p| format!("{{{}}}", p["name"].as_str().unwrap()));
            let in_path: Vec<_> = in_path.collect();
            assert_eq!(path.matches('{').count(), in_path.len(), "{at}");
            assert!(in_path.iter().all(|name| path.contains(name)), "{at}: {in_path:?}");
        }
    }

    fn referenced<'a>(document: &'a Value, reference: &str) -> &'a Value {
        let found = reference.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
        found.unwrap_or_else(|| panic!("{reference} leads nowhere"))
    }

    #[test]
    fn references_lead_somewhere_and_components_are_used() {
        fn walk(value: &Value, found: &mut BTreeSet<String>) {
            match value {
                Value::Object(map) => map.iter().for_each(|(key, value)| match (key.as_str(), value.as_str()) {
                    ("$ref", Some(text)) => drop(found.insert(text.to_owned())),
                    _ => walk(value, found),
                }),
                Value::Array(list) => list.iter().for_each(|value| walk(value, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = BTreeSet::new();
        walk(&document, &mut found);
        for reference in &found {
            referenced(&document, reference);
        }
        for (sort, components) in document["components"].as_object().unwrap() {
            for name in components.as_object().unwrap().keys() {
                assert!(found.contains(&format!("#/components/{sort}/{name}")), "{sort}/{name} is not used");
            }
        }
    }

    #[test]
    fn the_version_is_ours() {
        let text = written_in("3.2.0");
        assert!(text.starts_with("openapi: 3.2.0\n") && !text.contains("METROLITH_VERSION"));
        assert_eq!(document()["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
