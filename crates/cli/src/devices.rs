//! The command `recurve devices`.

use crate::Outcome;
use crate::arguments::parse_device;
use crate::terminal::{print_json, say};
use recurve::{Device, DeviceSelector};
use serde_json::json;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// List only the device that this selects.
    #[arg(long, value_parser = parse_device)]
    device: Option<DeviceSelector>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(a: &Arguments) -> Outcome {
    let (adapters, cpu) = match &a.device {
        None => (Device::adapters(), true),
        Some(selector) => match Device::open(selector)?.gpu() {
            Some(gpu) => (vec![gpu.summary().clone()], false),
            None => (Vec::new(), true),
        },
    };
    let best = Device::best()?;
    if a.json {
        let list: Vec<_> = adapters
            .iter()
            .map(|s| {
                json!({
                    "name": s.name, "backend": s.backend, "driver": s.driver, "kind": s.kind.to_string(),
                    "pci": s.pci.map(|p| p.to_string()),
                    "max_binding_bytes": s.max_binding_bytes, "max_workgroup_bytes": s.max_workgroup_bytes,
                    "max_workgroup_lanes": s.max_workgroup_lanes, "subgroup": [s.subgroup.0, s.subgroup.1],
                    "f16": s.f16, "timestamps": s.timestamps,
                })
            })
            .collect();
        print_json(&json!({ "cpu": cpu.then(|| Device::Cpu.name()), "adapters": list, "auto": best.to_string() }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if cpu {
        say(format_args!("cpu        {}", Device::Cpu.name()))?;
    }
    for s in &adapters {
        let place = s.pci.map_or_else(String::new, |p| format!(", pci:{p}"));
        say(format_args!("{:10} {} ({}, {}{place})", s.backend, s.name, s.kind, s.driver))?;
        say(format_args!(
            "           bindings {} MiB, workgroups {} lanes and {} KiB, subgroups {} to {}, f16 {}, timestamps {}",
            s.max_binding_bytes >> 20,
            s.max_workgroup_lanes,
            s.max_workgroup_bytes >> 10,
            s.subgroup.0,
            s.subgroup.1,
            if s.f16 { "yes" } else { "no" },
            if s.timestamps { "yes" } else { "no" },
        ))?;
    }
    if adapters.is_empty() && a.device.is_none() {
        say("no GPU adapter (Vulkan, Metal, DX12)")?;
    }
    say(format_args!("--device auto picks {best}"))?;
    Ok(ExitCode::SUCCESS)
}
