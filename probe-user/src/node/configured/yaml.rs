//! The few lines of Kubernetes files that matter here, without reading the files as YAML: arguments in a static pod's
//! manifest, and top-level keys of a component's configuration file.

/// The arguments in a manifest, each with its line: entries of a list that begin with `--`, and what follows them.
pub(super) fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter_map(|(index, line)| {
        let entry = line.trim().strip_prefix("- ")?;
        Some((index + 1, unquoted(entry)))
    })
}

/// The values of a top-level key, which may be a list, and the line of the key. `None` if the key is not there.
pub(super) fn top_level(text: &str, key: &str) -> Option<(Option<usize>, Vec<String>)> {
    if text.trim_start().starts_with('{') {
        return json(text, key).map(|values| (None, values));
    }
    let mut lines = text.lines().enumerate();
    let (index, value) = lines.find_map(|(index, line)| {
        let (name, value) = line.split_once(':')?;
        (unquoted(name) == key && !name.starts_with([' ', '\t', '-'])).then_some((index, value))
    })?;
    let value = unquoted(value.split(" #").next().unwrap_or_default());
    let values = if let Some(list) = value.strip_prefix('[') {
        let list = list.trim_end_matches(']').split(',').map(unquoted);
        list.filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
    } else if value.is_empty() {
        lines
            .map_while(|(_, line)| line.trim().strip_prefix("- ").map(|entry| unquoted(entry).to_owned()))
            .collect()
    } else if value == "null" {
        Vec::new()
    } else {
        vec![value.to_owned()]
    };
    Some((Some(index + 1), values))
}

fn json(text: &str, key: &str) -> Option<Vec<String>> {
    let document: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(match document.get(key)? {
        serde_json::Value::String(value) => vec![value.clone()],
        serde_json::Value::Array(list) => {
            list.iter().filter_map(|entry| entry.as_str()).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    })
}

fn unquoted(text: &str) -> &str {
    text.trim().trim_matches(['"', '\''])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_configuration_file() {
        let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nipvs:\n  mode: no\n  excludeCIDRs: null\nmode: \"ipvs\" # x\n\
             nodePortAddresses: null\nallowedUnsafeSysctls:\n- net.core.somaxconn\n  - 'net.ipv4.*'\nother: 1\nlist: [a, \"b\"]\n";
        let one = |line, value: &str| Some((Some(line), vec![value.to_owned()]));
        assert_eq!(top_level(text, "mode"), one(5, "ipvs"));
        assert_eq!(top_level(text, "nodePortAddresses"), Some((Some(6), vec![])));
        let (_, values) = top_level(text, "allowedUnsafeSysctls").unwrap();
        assert_eq!(values, ["net.core.somaxconn", "net.ipv4.*"]);
        assert_eq!(top_level(text, "list").unwrap().1, ["a", "b"]);
        assert_eq!(top_level(text, "excludeCIDRs"), None);
        assert_eq!(top_level("{\"mode\": \"ipvs\"}", "mode"), Some((None, vec!["ipvs".into()])));
        assert_eq!(top_level("{\"mode\": ", "mode"), None);
    }
}
