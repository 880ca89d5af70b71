//! Names of the schema as Rust writes them: `CSIPluginInfo` is `CsiPluginInfo`, its module
//! `csi_plugin_info`; `TASK_RUNNING` is `TaskRunning`.

/// Words that Rust keeps for itself and that the schema uses.
const KEYWORDS: [&str; 4] = ["type", "mod", "move", "ref"];

/// Cuts at `_`, where lower case goes over into upper case, and before the last capital of several.
fn words(name: &str) -> Vec<String> {
    let chars: Vec<char> = name.chars().collect();
    let mut words = vec![String::new()];
    for (i, &c) in chars.iter().enumerate() {
        let before = i.checked_sub(1).map(|i| chars[i]);
        let after = chars.get(i + 1);
        let rises = c.is_uppercase() && before.is_some_and(|b| b.is_lowercase() || b.is_numeric());
        let last_capital = c.is_uppercase()
            && before.is_some_and(char::is_uppercase)
            && after.is_some_and(|a| a.is_lowercase());
        if c == '_' || rises || last_capital {
            words.push(String::new());
        }
        if c != '_'
            && let Some(word) = words.last_mut()
        {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The name of a type or of a value of an enum.
pub(crate) fn camel(name: &str) -> String {
    let capital = |word: &String| word[..1].to_uppercase() + &word[1..];
    let joined: String = words(name).iter().map(capital).collect();
    match joined.as_str() {
        // `Self` cannot be an identifier.
        "Self" => "Own".to_owned(),
        _ => joined,
    }
}

/// The name of a module or field.
pub(crate) fn snake(name: &str) -> String {
    let joined = words(name).join("_");
    if KEYWORDS.contains(&joined.as_str()) {
        format!("r#{joined}")
    } else {
        joined
    }
}

/// The path of a type: packages below `mesos.v1` and enclosing messages are modules.
pub(crate) fn path(package: &str, name: &str) -> Vec<String> {
    let inner = package.strip_prefix("mesos.v1").unwrap_or(package);
    let outer = inner.split('.').filter(|p| !p.is_empty()).map(snake);
    let mut parts: Vec<&str> = name.split('.').collect();
    let last = parts.pop().unwrap_or_default();
    outer
        .chain(parts.into_iter().map(snake))
        .chain([camel(last)])
        .collect()
}
