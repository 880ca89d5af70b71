//! What is shown of containers: `list`, `ps` and `events`.

use std::process::{Command, Stdio};
use std::time::Duration;

use gantry_isolation::oci::{self, Global, OciError};

use super::{print, refuse};

pub(super) fn list(global: &Global, format: &str, quiet: bool) -> Result<(), OciError> {
    let found = oci::list(global)?;
    if quiet {
        found.iter().for_each(|one| print(&format!("{}\n", one.id)));
        return Ok(());
    }
    match format {
        "json" => {
            // Go writes a list that was never filled as null, and engines read that.
            let text = if found.is_empty() {
                "null".to_owned()
            } else {
                serde_json::to_string(&found).map_err(|error| refuse(error.to_string()))?
            };
            print(&text);
        }
        "table" => {
            let mut rows =
                vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
            rows.extend(found.into_iter().map(|one| {
                [
                    one.id,
                    one.pid.to_string(),
                    one.status.to_owned(),
                    one.bundle,
                    one.created,
                    one.owner,
                ]
            }));
            print(&aligned(&rows));
        }
        _ => return Err(refuse("invalid format option")),
    }
    Ok(())
}

/// Columns at least 12 wide and 3 apart, as runc's.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let longest = rows.iter().map(|row| row[column].chars().count()).max();
        (longest.unwrap_or(0) + 3).max(12)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < N {
                let gap = widths[column].saturating_sub(cell.chars().count());
                text.push_str(&" ".repeat(gap));
            }
        }
        text.push('\n');
    }
    text
}

pub(super) fn ps(global: &Global, format: &str, args: &[String]) -> Result<u8, OciError> {
    let (id, options) = args
        .split_first()
        .ok_or_else(|| refuse("gantry-oci: \"ps\" requires a minimum of 1 argument(s)"))?;
    let pids = oci::processes(global, id)?;
    match format {
        "json" => {
            let text = serde_json::to_string(&pids).map_err(|error| refuse(error.to_string()))?;
            print(&format!("{text}\n"));
            return Ok(0);
        }
        "table" => {}
        _ => return Err(refuse("invalid format option")),
    }
    let default = ["-ef".to_owned()];
    let options = if options.is_empty() {
        &default[..]
    } else {
        options
    };
    let output = Command::new("ps")
        .args(options)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| refuse(format!("run ps: {error}")))?;
    if !output.status.success() {
        return Err(refuse(format!("ps: {}", output.status)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header
        .split_whitespace()
        .position(|word| word == "PID")
        .ok_or_else(|| refuse("couldn't find PID field in ps output"))?;
    print(&format!("{header}\n"));
    for line in lines {
        let pid = line.split_whitespace().nth(column);
        let pid = pid.and_then(|word| word.parse::<i32>().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            print(&format!("{line}\n"));
        }
    }
    Ok(0)
}

pub(super) fn events(
    global: &Global,
    stats: bool,
    interval: &str,
    id: &str,
) -> Result<(), OciError> {
    if stats {
        print(&line(&oci::statistics(global, id)?));
        return Ok(());
    }
    let pause = duration(interval)
        .filter(|pause| !pause.is_zero())
        .ok_or_else(|| refuse("duration interval must be greater than 0"))?;
    loop {
        match oci::statistics(global, id) {
            Ok(event) => print(&line(&event)),
            // Its end is the end of what there is to tell.
            Err(OciError::NotRunning | OciError::Missing) => return Ok(()),
            Err(error) => return Err(error),
        }
        std::thread::sleep(pause);
    }
}

/// An event on one line, in runc's order, which scripts match.
fn line(text: &str) -> String {
    let event: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let part = |name| &event[name];
    format!(
        "{{\"type\":{},\"id\":{},\"data\":{}}}\n",
        part("type"),
        part("id"),
        part("data")
    )
}

/// As Go writes one number and unit.
fn duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at(split);
    let number: u64 = digits.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        assert_eq!(duration("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(duration("5s"), Some(Duration::from_secs(5)));
        assert_eq!(duration("5"), None);
        assert_eq!(duration("xs"), None);
    }

    #[test]
    fn columns_line_up() {
        let rows =
            [["ID", "PID"], ["a-long-container-name", "1"]].map(|row| row.map(str::to_owned));
        assert_eq!(
            aligned(&rows),
            "ID                      PID\na-long-container-name   1\n"
        );
    }
}
