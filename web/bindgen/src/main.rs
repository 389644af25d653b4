//! `recurve-web-bindgen IN.wasm FOLDER NAME`: writes `NAME.js` and `NAME_bg.wasm` for a module that Cargo built.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, folder, name] = &arguments[..] else {
        eprintln!("usage: recurve-web-bindgen IN.wasm FOLDER NAME");
        return ExitCode::FAILURE;
    };
    let made = wasm_bindgen_cli_support::Bindgen::new().input_path(input).web(true).and_then(|bindgen| {
        bindgen.out_name(name).typescript(false).remove_name_section(true).remove_producers_section(true);
        bindgen.generate(folder)
    });
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{input}: {e:#}");
            ExitCode::FAILURE
        }
    }
}
