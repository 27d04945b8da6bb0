//! JSON Schemas of what [`super::json`] writes, generated from the types.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use crate::analysis::model::{INPUT_SCHEMA, InputAccount};
use crate::diagnosis::incident::{Incident, Summary};
use crate::doctor::Doctor;
use crate::exposure::check::Check;
use crate::ports::model;
use crate::report::pods::ProbeLine;
use crate::serve::exposure::{self, ExposureChange};
use crate::serve::lines::{self, Repeats};

/// Every schema with the name of its file under `docs/schema/`.
pub fn all() -> Vec<(&'static str, Value)> {
    vec![
        ("incident.v1.json", of::<Incident>("portclash.incident/v1")),
        ("exposure.v1.json", of::<ExposureChange>(exposure::SCHEMA)),
        ("input.v1.json", of::<InputAccount>(INPUT_SCHEMA)),
        ("check.v1.json", of::<Check>("portclash.check/v1")),
        ("doctor.v1.json", of::<Doctor>("portclash.doctor/v1")),
        ("ports.v1.json", of::<model::Row>(model::ROW)),
        ("ports-summary.v1.json", of::<model::Summary>(model::SUMMARY)),
        ("probe.v1.json", of::<ProbeLine>("portclash.probe/v1")),
        ("repeats.v1.json", of::<Repeats>(lines::SCHEMA)),
        ("summary.v1.json", of::<Summary>("portclash.summary/v1")),
    ]
}

/// The schema of one type. Every field is required: unknown is `null`, never left out.
pub fn of<T: JsonSchema>(name: &str) -> Value {
    let generator = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = false);
    let mut schema: Schema = generator.into_generator().into_root_schema_for::<T>();
    require_all(schema.as_object_mut());
    schema.insert("title".to_owned(), name.into());
    if let Some(field) = schema.pointer_mut("/properties/schema").and_then(Value::as_object_mut) {
        field.insert("const".to_owned(), name.into());
    }
    schema.to_value()
}

fn require_all(schema: Option<&mut serde_json::Map<String, Value>>) {
    let Some(schema) = schema else { return };
    if let Some(names) = schema.get("properties").and_then(Value::as_object).map(|all| all.keys().cloned()) {
        let names: Vec<Value> = names.map(Value::String).collect();
        schema.insert("required".to_owned(), Value::Array(names));
        schema.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    for part in schema.values_mut() {
        match part {
            Value::Object(part) => require_all(Some(part)),
            Value::Array(parts) => parts.iter_mut().for_each(|part| require_all(part.as_object_mut())),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// `UPDATE_SCHEMA=1 cargo test -p probe-user schema` writes them anew.
    #[test]
    fn the_committed_schemas_are_those_of_the_types() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
        for (name, schema) in all() {
            let path = folder.join(name);
            let text = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
            if std::env::var_os("UPDATE_SCHEMA").is_some() {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&path, &text).unwrap();
            }
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(committed == text, "{} is out of date: run with UPDATE_SCHEMA=1", path.display());
        }
    }

    #[test]
    fn every_field_is_required_and_none_is_foreign_even_in_parts() {
        fn objects<'a>(value: &'a Value, found: &mut Vec<&'a serde_json::Map<String, Value>>) {
            match value {
                Value::Object(map) => {
                    if map.get("properties").is_some_and(Value::is_object) {
                        found.push(map);
                    }
                    map.values().for_each(|value| objects(value, found));
                }
                Value::Array(list) => list.iter().for_each(|value| objects(value, found)),
                _ => {}
            }
        }
        for (name, schema) in all() {
            let mut found = Vec::new();
            objects(&schema, &mut found);
            assert!(!found.is_empty(), "{name}");
            for object in found {
                let properties = object["properties"].as_object().unwrap().len();
                assert_eq!(object["required"].as_array().unwrap().len(), properties, "{name}: {object:?}");
            }
        }
        let (_, incident) = &all()[0];
        assert_eq!(incident["properties"]["schema"]["const"], "portclash.incident/v1");
    }
}
