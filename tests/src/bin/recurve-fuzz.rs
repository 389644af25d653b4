//! `recurve-fuzz cells`: compares random recurrent layers on every device with the f64 reference. `cargo xtask fuzz
//! cells` calls it.

#![forbid(unsafe_code)]

use recurve::Device;
use recurve_tests::fuzz::{Choice, Plan, seed_of};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const USAGE: &str = "usage: recurve-fuzz cells [--runs N | --minutes M] [--seed S] [--device all|cpu|NAME] \
    [--work MULTIPLY-ADDS] [--plan JSON [--way NAME]] [--first yes]";

struct Options {
    runs: u64,
    time: Option<Duration>,
    seed: u64,
    device: String,
    work: usize,
    plan: Option<Plan>,
    way: Option<String>,
    /// Whether to stop at the first failure, without simplifying it.
    first: bool,
}

fn options() -> Result<Options, String> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some("cells") {
        return Err(USAGE.into());
    }
    let mut o = Options {
        runs: 200,
        time: None,
        seed: 1,
        device: "all".into(),
        work: 10_000_000,
        plan: None,
        way: None,
        first: false,
    };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value\n{USAGE}"))?;
        let number = || value.parse::<u64>().map_err(|e| format!("{name} {value}: {e}"));
        match name.as_str() {
            "--runs" => o.runs = number()?,
            "--minutes" => {
                let minutes: f64 = value.parse().map_err(|e| format!("{name} {value}: {e}"))?;
                let time = Duration::try_from_secs_f64(60.0 * minutes).map_err(|e| format!("{name} {value}: {e}"))?;
                (o.runs, o.time) = (u64::MAX, Some(time));
            }
            "--seed" => o.seed = number()?,
            "--device" => o.device = value,
            "--work" => o.work = number()? as usize,
            "--plan" => o.plan = Some(value.parse().map_err(|e| format!("--plan: {e}"))?),
            "--way" => o.way = Some(value),
            "--first" => o.first = value == "yes",
            _ => return Err(format!("there is no {name}\n{USAGE}")),
        }
    }
    Ok(o)
}

fn devices(name: &str) -> Result<Vec<Device>, String> {
    if name == "all" {
        let gpus = Device::all().into_iter().filter(|d| d.gpu().is_some());
        return Ok(std::iter::once(Device::Cpu).chain(gpus).collect());
    }
    Device::by_name(name).map(|d| vec![d]).map_err(|e| e.to_string())
}

/// The number of plans run and the current plan, so that a plan that hangs can be printed.
static CURRENT: Mutex<(u64, Option<String>)> = Mutex::new((0, None));
/// Seconds after which a plan counts as hanging.
const HANG: u32 = 120;

fn now(what: Option<String>) {
    let mut current = CURRENT.lock().expect("nobody panics with it");
    *current = (current.0 + 1, what);
}

fn watch() {
    std::thread::spawn(|| {
        let (mut seen, mut seconds) = (0, 0);
        loop {
            // Counts the seconds that this thread has slept, so that time during which the whole program is stopped
            // does not count.
            std::thread::sleep(Duration::from_secs(1));
            let current = CURRENT.lock().expect("nobody panics with it");
            seconds = if current.0 == seen { seconds + 1 } else { 0 };
            seen = current.0;
            if let Some(what) = &current.1
                && seconds > HANG
            {
                println!("HANGS    {what}");
                std::process::exit(1);
            }
        }
    });
}

#[derive(Default)]
struct Total {
    plans: u64,
    passed: usize,
    refused: usize,
    sensitive: usize,
    useless: u64,
    failed: usize,
    worst: f64,
}

fn main() -> ExitCode {
    let (options, devices) = match options().and_then(|o| devices(&o.device).map(|d| (o, d))) {
        Ok(o) => o,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::from(2);
        }
    };
    watch();
    let start = Instant::now();
    let mut totals: Vec<Total> = devices.iter().map(|_| Total::default()).collect();
    for n in 0..options.runs {
        if options.time.is_some_and(|t| start.elapsed() > t) || (n > 0 && options.plan.is_some()) {
            break;
        }
        let plan = options.plan.clone().unwrap_or_else(|| Plan::draw(seed_of(options.seed, n), options.work));
        for (device, total) in devices.iter().zip(&mut totals) {
            let choice = match &options.way {
                Some(way) => Choice::Named(way),
                None if options.plan.is_some() => Choice::All,
                None => Choice::Some,
            };
            now(Some(format!("{plan} on {device}")));
            total.plans += 1;
            let Some(report) = plan.check(device, choice) else {
                total.useless += 1;
                continue;
            };
            total.passed += report.passed;
            total.refused += report.refused;
            total.sensitive += report.sensitive;
            total.failed += report.faults.len();
            total.worst = total.worst.max(report.worst);
            for fault in &report.faults {
                println!("FAILED   on {device} by `{}`: {}", fault.way, fault.message);
                println!("         cargo xtask fuzz cells --device '{}' --plan '{plan}'", name(device));
            }
            if !report.faults.is_empty() && options.first {
                return ExitCode::FAILURE;
            }
            if !report.faults.is_empty() && options.plan.is_none() {
                // Finding simpler plans takes long in total, but each of them is short, so it is not watched.
                now(None);
                let smaller = plan.shrink(device);
                println!("         cargo xtask fuzz cells --device '{}' --plan '{smaller}'", name(device));
            }
        }
    }
    now(None);
    for (device, t) in devices.iter().zip(&totals) {
        println!(
            "{device}: {} plans, {} ways passed, {} refused, {} failed; worst error {:.2} of the bound; {} held to their own \
             sensitivity; {} plans too sensitive to compare",
            t.plans, t.passed, t.refused, t.failed, t.worst, t.sensitive, t.useless
        );
    }
    println!("seed {}, {:.0} s", options.seed, start.elapsed().as_secs_f64());
    let failed = totals.iter().any(|t| t.failed > 0);
    ExitCode::from(u8::from(failed || totals.iter().any(|t| t.passed == 0)))
}

/// The name by which the device can be selected again.
fn name(device: &Device) -> String {
    match device.gpu() {
        Some(_) => format!("{}:{}", device.backend(), device.name()),
        None => "cpu".into(),
    }
}
