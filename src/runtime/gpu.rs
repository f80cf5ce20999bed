//! What of CUDA the machine has. Only files are looked at: whether a provider starts is known when it starts.

use super::locate::Machine;

/// The CUDA generations that GPU builds exist for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cuda {
    /// CUDA 13.
    Thirteen,
    /// CUDA 12.
    Twelve,
}

impl Cuda {
    /// File name of the CUDA runtime library.
    fn library(self) -> &'static str {
        match (self, cfg!(windows)) {
            (Cuda::Thirteen, false) => "libcudart.so.13",
            (Cuda::Twelve, false) => "libcudart.so.12",
            (Cuda::Thirteen, true) => "cudart64_13.dll",
            (Cuda::Twelve, true) => "cudart64_12.dll",
        }
    }
}

const CUDNN: &str = if cfg!(windows) {
    "cudnn64_9.dll"
} else {
    "libcudnn.so.9"
};

const DRIVER: &str = if cfg!(windows) {
    "nvcuda.dll"
} else {
    "libcuda.so.1"
};

/// Whether an NVIDIA driver is there; without one no GPU provider can start.
pub fn has_driver(machine: &Machine) -> bool {
    machine.nvidia_driver.exists() || has(machine, DRIVER)
}

/// The newest CUDA generation that the machine has.
///
/// # Errors
/// The names of the libraries that were looked for.
pub fn cuda(machine: &Machine) -> Result<Cuda, String> {
    let order = [Cuda::Thirteen, Cuda::Twelve];
    order
        .into_iter()
        .find(|cuda| has(machine, cuda.library()))
        .ok_or_else(|| {
            format!(
                "neither {} (CUDA 13) nor {} (CUDA 12) is where libraries are looked for",
                order[0].library(),
                order[1].library()
            )
        })
}

/// What a GPU build will miss at run time, beside CUDA itself: it may come later, as on a build machine.
pub fn missing(machine: &Machine) -> Vec<&'static str> {
    let mut missing = Vec::new();
    if !has_driver(machine) {
        missing.push("an NVIDIA driver");
    }
    if !has(machine, CUDNN) {
        missing.push(CUDNN);
    }
    missing
}

fn has(machine: &Machine, library: &str) -> bool {
    machine
        .library_folders
        .iter()
        .any(|folder| folder.join(library).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_cuda_is_taken_and_what_lacks_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let machine = Machine {
            library_folders: vec![folder.path().into()],
            ..Machine::bare()
        };
        let touch = |name: &str| std::fs::write(folder.path().join(name), b"").expect("written");

        let none = cuda(&machine).expect_err("nothing there");
        assert!(none.contains(Cuda::Thirteen.library()) && none.contains(Cuda::Twelve.library()));
        assert!(!has_driver(&machine));
        assert_eq!(missing(&machine), ["an NVIDIA driver", CUDNN]);

        touch(Cuda::Twelve.library());
        assert_eq!(cuda(&machine), Ok(Cuda::Twelve));
        touch(Cuda::Thirteen.library());
        assert_eq!(cuda(&machine), Ok(Cuda::Thirteen));
        touch(DRIVER);
        assert!(has_driver(&machine));
        assert_eq!(missing(&machine), [CUDNN]);
        touch(CUDNN);
        assert!(missing(&machine).is_empty());
    }
}
