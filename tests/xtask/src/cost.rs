//! What a request costs in instructions, counted by valgrind: a number that the load of the machine does
//! not move. `cargo xtask cost` fails when one has grown by more than a tenth since it was written down.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::plugins;

/// Counts, and compares with `tests/bench/cost.txt`, or writes that anew.
pub(crate) fn check(must_write: bool) -> Result<(), String> {
    let root = plugins::root()?;
    let witgate = optimised(&root)?;
    let counted = count(&root, &witgate)?;
    let page = root.join(KEPT);
    if must_write {
        let lines: String = counted.iter().map(|(n, c)| format!("{n} {c}\n")).collect();
        return fs::write(&page, format!("{HEAD}{lines}")).map_err(|cause| shown(&page, &cause));
    }
    let kept = fs::read_to_string(&page).map_err(|cause| shown(&page, &cause))?;
    let mut dearer = Vec::new();
    for (name, count) in &counted {
        let before = before(&kept, name).ok_or(format!("{KEPT} has no line for {name}"))?;
        let ratio = *count as f64 / before as f64;
        println!(
            "{name:<12} {count:>7} instructions a request, {ratio:.2} of what is written down"
        );
        if ratio > 1.0 + SLACK {
            dearer.push(name.as_str());
        } else if ratio < 1.0 - SLACK {
            println!("{name:<12} is cheaper: cargo xtask cost --write keeps that");
        }
    }
    match dearer.as_slice() {
        [] => Ok(()),
        names => Err(format!(
            "dearer than before by more than a tenth: {}. Find out why (docs/PERFORMANCE.md says how), \
             or say in the commit why it is worth it and run cargo xtask cost --write",
            names.join(", ")
        )),
    }
}

fn before(kept: &str, name: &str) -> Option<u64> {
    let line = kept.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// The gateway with optimisation, beside dependencies as tests have them: those need not be built twice.
fn optimised(root: &Path) -> Result<PathBuf, String> {
    let mut build = Command::new("cargo");
    build.current_dir(root).args(["build", "--package", "witgate", "--locked"]);
    for setting in ["opt-level=3", "debug-assertions=false", "debug=false"] {
        build.arg("--config").arg(format!("profile.dev.package.witgate.{setting}"));
    }
    build.env("CARGO_INCREMENTAL", "0");
    run(&mut build)?;
    let built = root.join("target/debug/witgate");
    let kept = root.join("target/cost/witgate");
    fs::create_dir_all(root.join("target/cost")).map_err(|cause| shown(&kept, &cause))?;
    let _ = fs::remove_file(&kept);
    fs::copy(&built, &kept).map_err(|cause| shown(&built, &cause))?;
    Ok(kept)
}

/// Instructions in user space for one request of each kind.
fn count(root: &Path, witgate: &Path) -> Result<Vec<(String, u64)>, String> {
    let folder = root.join("target/cost/run");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|cause| shown(&folder, &cause))?;
    let origin = origin()?;
    let port = free_port()?;
    let headers = root.join("target/plugins/headers.wasm");
    let config = CONFIG
        .replace("{port}", &port.to_string())
        .replace("{origin}", &origin.to_string())
        .replace("{headers}", &headers.display().to_string());
    let at = folder.join("gateway.yaml");
    fs::write(&at, config).map_err(|cause| shown(&at, &cause))?;
    // Plugins are compiled before valgrind slows that down.
    run(Command::new(witgate).args(["check", "--config"]).arg(&at))?;

    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--instr-atstart=no", "--callgrind-out-file=count"]);
    command.arg(witgate).args(["run", "--config"]).arg(&at).current_dir(&folder);
    let log = fs::File::create(folder.join("log")).map_err(|cause| shown(&folder, &cause))?;
    let gateway = command.stdout(Stdio::null()).stderr(log).spawn();
    let gateway = Running(gateway.map_err(|cause| format!("valgrind does not start: {cause}"))?);
    let started = Instant::now();
    let warm = || requests(port, "plain.localhost", &["--h1", "-n20"]);
    while let Err(cause) = warm() {
        if started.elapsed() > START_MAX {
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            return Err(format!("the gateway does not answer: {cause}\n{log}"));
        }
        thread::sleep(Duration::from_millis(300));
    }
    let control = |what: &str| {
        run(Command::new("callgrind_control").arg(what).arg(gateway.0.id().to_string()))
    };
    control("--instr=on")?;
    let mut counted = Vec::new();
    for (at, (name, host, how)) in KINDS.iter().enumerate() {
        let rounds = format!("-n{REQUESTS}");
        let how: Vec<&str> = how.split(' ').chain([rounds.as_str()]).collect();
        // The first ones open connections and start what starts late.
        requests(port, host, &[how.first().copied().unwrap_or_default(), "-n20"])?;
        control("--zero")?;
        requests(port, host, &how)?;
        control("--dump")?;
        let dump = folder.join(format!("count.{}", at + 1));
        let text = fs::read_to_string(&dump).map_err(|cause| shown(&dump, &cause))?;
        let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
        let total: u64 = total
            .and_then(|total| total.trim().parse().ok())
            .ok_or("valgrind's dump has no total")?;
        counted.push(((*name).to_owned(), total / u64::from(REQUESTS)));
    }
    Ok(counted)
}

/// A process that is ended when it is no longer wanted.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes requests; all must succeed.
fn requests(port: u16, host: &str, how: &[&str]) -> Result<(), String> {
    let mut command = Command::new("h2load");
    command.args(how).args(["-c1", "-t1", "--connection-active-timeout=60"]);
    command.arg(format!("--connect-to=127.0.0.1:{port}")).arg(format!("https://{host}/"));
    let said = run(&mut command)?;
    let line = said.lines().find(|line| line.starts_with("requests:")).unwrap_or_default();
    let has_failed = !line.contains(" 0 failed, 0 errored") || line.contains(" 0 succeeded");
    let is_ok = said
        .lines()
        .any(|line| line.starts_with("status codes:") && line.contains(" 0 4xx, 0 5xx"));
    if has_failed || !is_ok { Err(format!("requests failed: {said}")) } else { Ok(()) }
}

/// A server that says the same to everybody; its port.
fn origin() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|cause| cause.to_string())?;
    let port = listener.local_addr().map_err(|cause| cause.to_string())?.port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(&stream));
        }
    });
    Ok(port)
}

fn serve(stream: &TcpStream) {
    let response = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1024\r\n\r\n{}",
        "x".repeat(1024)
    );
    let mut writer = stream;
    for line in BufReader::new(stream).lines() {
        match line {
            Ok(line) if line.is_empty() => {
                if writer.write_all(response.as_bytes()).is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|cause| cause.to_string())?;
    listener.local_addr().map(|address| address.port()).map_err(|cause| cause.to_string())
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|cause| format!("{command:?}: {cause}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{command:?}\n{}{}", text(&output.stdout), text(&output.stderr))),
    }
}

fn shown(path: &Path, cause: &std::io::Error) -> String {
    format!("{}: {cause}", path.display())
}

/// Each kind of request: its name, the host that it goes to, and how h2load makes it.
const KINDS: [(&str, &str, &str); 3] = [
    ("h1", "plain.localhost", "--h1"),
    ("h2", "plain.localhost", "-m8"),
    ("h1-plugin", "filtered.localhost", "--h1"),
];
const REQUESTS: u32 = 1000;
const SLACK: f64 = 0.1;
const START_MAX: Duration = Duration::from_secs(120);
const KEPT: &str = "tests/bench/cost.txt";
const HEAD: &str =
    "# Instructions in user space for one request of 1 KiB, by `cargo xtask cost --write`.\n";
const CONFIG: &str = "listen: [https://127.0.0.1:{port}]
store: state
workers: 1
log: {level: warn, access: off}
upstreams: {up: http://127.0.0.1:{origin}}
plugins:
  x:
    component: {headers}
    config: {request: {set: {x-ext: '1'}}, response: {set: {x-ext: '1'}}}
sites:
  - {hosts: [plain.localhost], upstream: up}
  - {hosts: [filtered.localhost], filters: [x], upstream: up}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_found_by_its_whole_name() {
        let kept = "# h1 1\nh1-plugin 3\nh1 2\n";
        assert_eq!(before(kept, "h1"), Some(2));
        assert_eq!(before(kept, "h1-plugin"), Some(3));
        assert_eq!(before(kept, "h3"), None);
    }
}
