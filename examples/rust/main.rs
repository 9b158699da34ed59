// Untested. A converted model in Rust (crate ort 2): cargo run MODEL LIBRARY
// LIBRARY is what `npx sigmoid-attention library` prints.
use ort::session::Session;

fn main() -> ort::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let session = Session::builder()?
        .with_operator_library(&arguments[2])?
        .commit_from_file(&arguments[1])?;
    println!("{} inputs", session.inputs().len());
    Ok(())
}
