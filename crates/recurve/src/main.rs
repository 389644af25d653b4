//! The `recurve` command.

mod cli;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Recurrent networks on any GPU, and fast on the CPU.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the devices and what they can do.
    Devices(cli::devices::Arguments),
    /// Run a model on arrays or on text.
    Run(cli::run::Arguments),
    /// Hold every device against the f64 reference, layer by layer.
    Check(cli::check::Arguments),
    /// Print a model's layers, shapes and parameters.
    Summary(cli::summary::Arguments),
    /// Draw a model as a picture, SVG or PNG.
    Plot(cli::plot::Arguments),
    /// Time recurrent layers over shapes, devices and strategies.
    Bench(cli::bench::Arguments),
}

fn main() -> ExitCode {
    cli::quiet::no_session_no_complaint();
    let arguments = match Arguments::try_parse() {
        Ok(a) => a,
        Err(e) => return cli::usage(&e),
    };
    // Whatever the command: a setting that is not understood is not passed over.
    let outcome = recurve::Device::Cpu.check().map_err(Into::into).and_then(|()| match arguments.command {
        Command::Devices(a) => cli::devices::run(&a),
        Command::Run(a) => cli::run::run(&a),
        Command::Check(a) => cli::check::run(&a),
        Command::Summary(a) => cli::summary::run(&a),
        Command::Plot(a) => cli::plot::run(&a),
        Command::Bench(a) => cli::bench::run(&a),
    });
    outcome.unwrap_or_else(|e| {
        cli::complain(format_args!("error: {e}"));
        ExitCode::from(cli::BAD_INPUT)
    })
}
