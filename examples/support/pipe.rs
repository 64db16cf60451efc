//! `print!` and `println!` for programs whose reader may leave, as in `example | head`.
//!
//! The standard macros panic then; these end the program as the signal would.

macro_rules! print {
    ($($text:tt)*) => { crate::pipe::write(format_args!($($text)*)) };
}

macro_rules! println {
    () => { print!("\n") };
    ($($text:tt)*) => {{
        print!($($text)*);
        print!("\n")
    }};
}

/// The status with which a shell reports a program that wrote to a closed pipe.
const BROKEN_PIPE: i32 = 141;

pub(crate) fn write(text: std::fmt::Arguments<'_>) {
    use std::io::Write;

    if let Err(error) = std::io::stdout().write_fmt(text) {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            std::process::exit(BROKEN_PIPE);
        }
        eprintln!("the result cannot be written ({error})");
        std::process::exit(1);
    }
}
