//! wrk: load, with every response checked.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{lab::Lab, process::run};

/// Counts the responses that are the expected one: status, every header field, and body. wrk has parsed them, so the order of
/// the fields is not compared.
const SCRIPT: &str = r#"
local ffi = require("ffi")
ffi.cdef("int getpid(void); int kill(int pid, int signal);")
local threads = {}
function setup(thread)
  table.insert(threads, thread)
  thread:set("me", #threads)
end

function init(args)
  local text = assert(io.open(args[1], "rb")):read("*a")
  local head, body = text:match("^(.-\r\n)\r\n(.*)$")
  want_status, want_body, want_fields, want_count = tonumber(head:match("^HTTP/1.1 (%d+)")), body, {}, 0
  for name, value in head:gmatch("\n([^:\r\n]+): *([^\r\n]*)") do
    want_fields[name], want_count = value, want_count + 1
  end
  mine, other = args[1] .. ".done" .. me, args[1] .. ".done" .. 3 - me
  left, exact, wrong, first = tonumber(args[2]), 0, 0, ""
end

local function same(status, headers, body)
  if status ~= want_status or body ~= want_body then return false end
  local count = 0
  for name, value in pairs(headers) do
    if want_fields[name] ~= value then return false end
    count = count + 1
  end
  return count == want_count
end

function response(status, headers, body)
  if same(status, headers, body) then exact = exact + 1 else
    wrong = wrong + 1
    if first == "" then first = status .. " " .. body:sub(1, 60):gsub("[^%w ]", ".") end
  end
  left = left - 1
  if left > 0 then return end
  wrk.thread:stop()
  io.open(mine, "w"):close()
  -- wrk itself waits for the end of its duration, or for SIGINT.
  if io.open(other) then ffi.C.kill(ffi.C.getpid(), 2) end
end

function done(summary, latency, requests)
  local exact, wrong, first = 0, 0, ""
  for _, thread in ipairs(threads) do
    exact, wrong = exact + thread:get("exact"), wrong + thread:get("wrong")
    if first == "" then first = thread:get("first") end
  end
  local e = summary.errors
  print(string.format('JSON {"exact":%d,"wrong":%d,"first":"%s","connect":%d,"read":%d,"write":%d,"timeout":%d,'
    .. '"seconds":%.3f,"p50_us":%d,"p99_us":%d,"max_us":%d}', exact, wrong, first, e.connect, e.read, e.write, e.timeout,
    summary.duration / 1e6, latency:percentile(50), latency:percentile(99), latency.max))
end
"#;

/// What wrk measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Responses with the expected status, header fields and body.
    pub exact: u64,
    /// Other responses.
    pub wrong: u64,
    /// The first of those.
    pub first_wrong: String,
    /// Failures to connect, to read and to write, and timeouts (2 s), in this order.
    pub errors: [u64; 4],
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Time from the request to the response in microseconds: median, 99th percentile, longest.
    pub latency_us: [u64; 3],
}

/// Asks at least this many times from the guest, for at most as long as the limit.
pub fn run_wrk(lab: &Lab, url: &str, expected: &[u8], requests: u64, limit: Duration) -> Result<Report> {
    let (script, response) = (lab.directory().join("wrk.lua"), lab.directory().join("wrk.expected"));
    fs::write(&script, SCRIPT)?;
    fs::write(&response, expected)?;
    for thread in 1..=2 {
        // What a run before this one has left.
        let _ = fs::remove_file(lab.directory().join(format!("wrk.expected.done{thread}")));
    }
    let mut command = lab.guest.client("wrk");
    command.args(["--threads", "2", "--connections", "64", "--timeout", "2s"]);
    command.args(["--duration", &format!("{}s", limit.as_secs())]).args(["-H", "Host: www.example.com"]);
    command.arg("--script").arg(&script).arg(url).arg("--").arg(&response).arg(requests.div_ceil(2).to_string());
    let text = run(&mut command, limit + Duration::from_secs(10))?.success()?;
    let json =
        text.lines().find_map(|line| line.strip_prefix("JSON ")).with_context(|| format!("no report: {text}"))?;
    let json: Value = serde_json::from_str(json).with_context(|| json.to_owned())?;
    let number = |name: &str| json[name].as_u64().with_context(|| format!("no {name} in {json}"));
    Ok(Report {
        exact: number("exact")?,
        wrong: number("wrong")?,
        first_wrong: json["first"].as_str().unwrap_or_default().to_owned(),
        errors: [number("connect")?, number("read")?, number("write")?, number("timeout")?],
        seconds: json["seconds"].as_f64().context("no seconds")?,
        latency_us: [number("p50_us")?, number("p99_us")?, number("max_us")?],
    })
}
