use std::process::ExitCode;

fn main() -> ExitCode {
    desktop_images::cli::run(std::env::args_os())
}
