//! Any text is a machine or an error at a place in it; a machine that is written reads back as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pnode_user::MachineFile;

fuzz_target!(|text: &str| {
    match text.parse::<MachineFile>() {
        Ok(file) => {
            let written = file.to_string();
            assert_eq!(written.parse(), Ok(file), "{written}");
        }
        Err(error) => {
            let line = text.lines().nth(error.line as usize - 1).unwrap_or("");
            let end = (error.column - 1 + error.width) as usize;
            // A text without a node is wrong as a whole.
            let is_whole = (error.line, error.column, error.width) == (1, 1, 1);
            assert!(end <= line.chars().count() || is_whole, "{error:?}");
            assert!(!error.in_text(text).to_string().is_empty());
        }
    }
});
