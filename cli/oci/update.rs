//! Flags of `update` as a request.

use std::io::Read;

use gantry_isolation::oci::config::{MAX_CONFIG_BYTES, Resources};
use gantry_isolation::oci::{OciError, Update};

use super::args::UpdateArgs;
use super::refuse;

pub(super) fn translate(args: UpdateArgs) -> Result<Update, OciError> {
    if let Some(source) = &args.resources {
        let mut text = Vec::new();
        let read = if source == "-" {
            std::io::stdin()
                .take(MAX_CONFIG_BYTES + 1)
                .read_to_end(&mut text)
        } else {
            std::fs::File::open(source)
                .and_then(|file| file.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut text))
        };
        read.map_err(|error| refuse(format!("read {source}: {error}")))?;
        return Ok(Update {
            json: Some(text),
            ..Update::default()
        });
    }
    let mut resources = Resources::default();
    let cpu = &mut resources.cpu;
    cpu.shares = number("cpu-share", args.cpu_share.as_deref())?;
    cpu.period = number("cpu-period", args.cpu_period.as_deref())?;
    cpu.quota = number("cpu-quota", args.cpu_quota.as_deref())?;
    cpu.burst = number("cpu-burst", args.cpu_burst.as_deref())?;
    cpu.realtime_period = number("cpu-rt-period", args.cpu_rt_period.as_deref())?;
    cpu.realtime_runtime = number("cpu-rt-runtime", args.cpu_rt_runtime.as_deref())?;
    cpu.idle = args.cpu_idle;
    cpu.cpus = args.cpuset_cpus.unwrap_or_default();
    cpu.mems = args.cpuset_mems.unwrap_or_default();
    let memory = &mut resources.memory;
    memory.limit = bytes("memory", args.memory.as_deref())?;
    memory.reservation = bytes("memory-reservation", args.memory_reservation.as_deref())?;
    memory.swap = bytes("memory-swap", args.memory_swap.as_deref())?;
    resources.pids.limit = args.pids_limit;
    resources.block_io.weight = args.blkio_weight;
    Ok(Update {
        json: None,
        resources,
    })
}

fn number<T: std::str::FromStr>(flag: &str, text: Option<&str>) -> Result<Option<T>, OciError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    text.parse()
        .map(Some)
        .map_err(|_| refuse(format!("invalid value for {flag}: {text}")))
}

/// Bytes, with a unit of 1024 as Docker has it.
fn bytes(flag: &str, text: Option<&str>) -> Result<Option<i64>, OciError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let wrong = || refuse(format!("invalid value for {flag}: {text}"));
    let lower = text.to_ascii_lowercase();
    let short = lower.strip_suffix('b').unwrap_or(&lower);
    let short = short.strip_suffix('i').unwrap_or(short);
    let (digits, shift) = match short.chars().last() {
        Some('k') => (&short[..short.len() - 1], 10),
        Some('m') => (&short[..short.len() - 1], 20),
        Some('g') => (&short[..short.len() - 1], 30),
        Some('t') => (&short[..short.len() - 1], 40),
        _ => (short, 0),
    };
    let number: i64 = digits.parse().map_err(|_| wrong())?;
    let scaled = number.checked_mul(1 << shift).ok_or_else(wrong)?;
    if scaled < -1 {
        return Err(wrong());
    }
    Ok(Some(scaled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        for (text, number) in [
            ("-1", -1),
            ("5", 5),
            ("2k", 2048),
            ("1MiB", 1 << 20),
            ("3gb", 3 << 30),
        ] {
            assert_eq!(bytes("memory", Some(text)).unwrap(), Some(number), "{text}");
        }
        for text in [
            "x",
            "-2",
            "1q",
            "99999999999999999999",
            "9223372036854775807k",
        ] {
            assert!(bytes("memory", Some(text)).is_err(), "{text}");
        }
        assert_eq!(bytes("memory", Some("")).unwrap(), None);
    }
}
