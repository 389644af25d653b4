//! The `recurve` command, with one file per subcommand. Exit codes: 0 success, 1 a check failed, 2 wrong usage, bad
//! input or an output that cannot be written.

mod arguments;
mod audio;
mod bench;
mod bench_model;
mod check;
mod convert;
mod devices;
mod front_end;
mod onnx;
mod onnx_check;
mod peer;
mod plot;
#[expect(unsafe_code, reason = "one environment variable is set before there are threads")]
mod quiet;
mod run;
mod sound;
mod summary;
mod terminal;
mod weights;

use clap::{Parser, Subcommand};
use std::error::Error;
use std::process::ExitCode;

const FAILED: u8 = 1;
const BAD_INPUT: u8 = 2;

type Outcome = Result<ExitCode, Box<dyn Error>>;

/// Runs recurrent networks on any GPU and on the CPU.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the devices and their capabilities.
    Devices(devices::Arguments),
    /// Run a model on arrays, text or recordings.
    Run(run::Arguments),
    /// Compare every device with the f64 reference, with expected arrays or with ONNX Runtime, node by node.
    Check(check::Arguments),
    /// Print a model's layers or nodes, shapes, parameters and states, or the modules of a file of weights.
    Summary(summary::Arguments),
    /// Draw a model as a picture, SVG or PNG.
    Plot(plot::Arguments),
    /// Write a model as an ONNX file or in Recurve's own format.
    Convert(convert::Arguments),
    /// Time a model, or recurrent layers over shapes, devices and strategies.
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    quiet::no_session_no_complaint();
    let arguments = match Arguments::try_parse() {
        Ok(a) => a,
        Err(e) => return terminal::usage(&e),
    };
    // An invalid environment setting is an error for every command.
    let outcome = recurve::Device::Cpu.check().map_err(Into::into).and_then(|()| match arguments.command {
        Command::Devices(a) => devices::run(&a),
        Command::Run(a) if onnx::is_onnx(&a.model) => onnx::run_model(&a),
        Command::Run(a) if !a.wav.is_empty() && front_end::Spec::is_one(&a.model) => audio::run(&a),
        Command::Run(a) => run::run(&a),
        Command::Check(a) if onnx::is_onnx(&a.model) => onnx_check::run(&a),
        Command::Check(a) => check::run(&a),
        Command::Summary(a) if onnx::is_onnx(&a.model) => onnx::summarize(&a),
        Command::Summary(a) if weights::is_weights(&a.model) => weights::summarize(&a),
        Command::Summary(a) => summary::run(&a),
        Command::Plot(a) => plot::run(&a),
        Command::Convert(a) => convert::run(&a),
        Command::Bench(a) => bench::run(&a),
    });
    outcome.unwrap_or_else(|e| {
        match e.downcast_ref() {
            // All of them, each with what it is about.
            Some(recurve::Error::Onnx { path, problems, .. }) => {
                terminal::complain(format_args!("error: {}: this ONNX file cannot be run:", path.display()));
                problems.iter().for_each(|p| terminal::complain(format_args!("  {p}")));
            }
            Some(recurve::Error::Keras { path, problems, .. }) => {
                terminal::complain(format_args!("error: {}: this Keras file cannot be run:", path.display()));
                problems.iter().for_each(|p| terminal::complain(format_args!("  {p}")));
            }
            _ => terminal::complain(format_args!("error: {e}")),
        }
        ExitCode::from(BAD_INPUT)
    })
}
