//! The index template that is shipped: every field of ours is mapped, and no type refuses another.

use serde_json::{Value, json};

use super::{batch_of, event, sink_of_index};
use crate::bulk::{Bulk, Options};

fn template() -> Value {
    serde_json::from_str(include_str!("../../config/elastic-template.json")).unwrap()
}

#[tokio::test]
async fn every_field_of_ours_is_mapped() {
    let search = Bulk::start(Options::default());
    search.install("siemferry", &template());
    let batch = batch_of(&*sink_of_index(&search), &[event(1, "{}")]);
    let document = batch.bytes.split(|byte| *byte == b'\n').nth(1).unwrap();
    let document: Value = serde_json::from_slice(document).unwrap();

    let fields = &template()["template"]["mappings"]["properties"];

    let types = |names: &Value, fields: &Value| -> Vec<(String, String)> {
        let names = names.as_object().unwrap().keys();
        names.map(|name| (name.clone(), fields[name]["type"].to_string())).collect()
    };
    let pair = |(name, kind): (&str, &str)| (name.to_owned(), format!("\"{kind}\""));
    assert_eq!(
        document.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["@timestamp", "siemferry"]
    );
    assert_eq!(fields["@timestamp"]["type"], "date");
    let ours = types(&document["siemferry"], &fields["siemferry"]["properties"]);
    let expected = [
        ("api", "keyword"),
        ("received", "date"),
        ("seq", "long"),
        ("source", "keyword"),
        ("time", "date"),
        ("type", "keyword"),
        ("uid", "keyword"),
    ];
    assert_eq!(ours, expected.map(pair));
}

#[test]
fn a_field_that_is_a_number_here_and_a_text_there_fits() {
    let mappings = &template()["template"]["mappings"];

    let rules = mappings["dynamic_templates"].as_array().unwrap();

    let kinds: Vec<_> = rules
        .iter()
        .flat_map(|rule| rule.as_object().unwrap().values())
        .map(|rule| {
            // The longest term is 32,766 bytes, and a character up to four.
            assert_eq!(rule["mapping"], json!({ "type": "keyword", "ignore_above": 8191 }));
            rule["match_mapping_type"].as_str().unwrap()
        })
        .collect();
    // All that a JSON value may be but an object; dates are texts, for nothing is detected.
    assert_eq!(kinds, ["string", "long", "double", "boolean"]);
    assert_eq!(mappings["date_detection"], false);
    assert_eq!(mappings["numeric_detection"], false);
    for field in mappings["properties"].as_object().unwrap().values() {
        // What an API sends may be anything: what does not fit is left out of the index, not refused.
        let is_ours = field["properties"]["uid"].is_object() || field["type"] == "date";
        assert!(is_ours || field["ignore_malformed"] == true, "{field}");
    }
}
