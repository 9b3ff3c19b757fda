//! What the gate would do with a frame: the loaded program `explain`, the gate's decision over the live tables without its side effects.

use anyhow::{Context as _, Result, anyhow, bail};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use portal_common::{Reason, cookie::RESPONSE_MAX, reason::Outcome};

// `enum xdp_action`, Linux `include/uapi/linux/bpf.h`.
const XDP_ABORTED: u32 = 0;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// Room for what a program may put in front of a frame or behind it: at most a response.
const ROOM: usize = 256 + RESPONSE_MAX;

/// What the program `explain` says of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// An XDP action's number in the lowest eight bits, and above them a [`Reason`]'s.
    pub value: u32,
    /// The frame as the program has left it.
    pub frame: Vec<u8>,
}

/// A frame on its way to a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departing {
    /// The index of the interface it leaves by.
    pub ifindex: u32,
    /// Whether it has come in by another interface; otherwise the gateway itself sends it.
    pub forwarded: bool,
}

/// The loaded programs `explain` and `explain_out`.
pub trait ExplainProgram: Send + Sync {
    /// Runs `explain` over a frame of at least 14 bytes, as if it had come in by this interface.
    fn run(&self, frame: &[u8], ifindex: u32) -> Result<Ran>;
    /// Runs `explain_out` over a frame of at least 14 bytes. What it says: 0 for passing, 1 for holding, 2 for dropping, and above the lowest eight bits
    /// a [`Reason`]'s number.
    fn run_out(&self, frame: &[u8], departing: Departing) -> Result<u32>;
}

/// As [`ExplainProgram::run`], of this program.
pub fn run(program: &Xdp, frame: &[u8], ifindex: u32) -> Result<Ran> {
    let context = context(frame.len(), ifindex);
    let mut out = vec![0; frame.len() + ROOM];
    let result = program
        .test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        })
        .context("the kernel refused to run the gate over the frame")?;
    out.truncate(result.data_size_out as usize);
    Ok(Ran { value: result.return_value, frame: out })
}

/// As [`ExplainProgram::run_out`], of this program.
pub fn run_out(program: &SchedClassifier, frame: &[u8], departing: Departing) -> Result<u32> {
    let context = departing_context(departing);
    let options = TestRunOptions { data_in: Some(frame), ctx_in: Some(&context), ..TestRunOptions::new() };
    let result = program.test_run(options).context("the kernel refused to run the meter over the frame")?;
    Ok(result.return_value)
}

/// A `struct __sk_buff` (Linux `include/uapi/linux/bpf.h`) for a test run: by which interface the frame leaves, and by which it has come in.
fn departing_context(Departing { ifindex, forwarded }: Departing) -> [u8; 192] {
    const INGRESS_IFINDEX_AT: usize = 36;
    const IFINDEX_AT: usize = 40;
    let mut context = [0; 192];
    context[IFINDEX_AT..IFINDEX_AT + 4].copy_from_slice(&ifindex.to_ne_bytes());
    if forwarded {
        // Any will do.
        context[INGRESS_IFINDEX_AT..INGRESS_IFINDEX_AT + 4].copy_from_slice(&ifindex.to_ne_bytes());
    }
    context
}

/// A `struct xdp_md` (Linux `include/uapi/linux/bpf.h`) for a test run: where the frame begins and ends, and which interface's first
/// receive queue it came by.
fn context(len: usize, ifindex: u32) -> Vec<u8> {
    let end = u32::try_from(len).expect("frames are short");
    let [data, data_meta, rx_queue_index, egress_ifindex] = [0; 4];
    [data, end, data_meta, ifindex, rx_queue_index, egress_ifindex]
        .iter()
        .flat_map(|word: &u32| word.to_ne_bytes())
        .collect()
}

/// What the responder would send back for a frame that came in by an interface, if anything.
pub type Rehearse = Box<dyn Fn(&[u8], u32) -> Option<Vec<u8>> + Send + Sync>;

/// Asks the gate.
pub struct Explainer {
    program: Box<dyn ExplainProgram>,
    rehearse: Rehearse,
}

/// What the gate would do with a frame now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// What would be done.
    pub verdict: Outcome,
    /// Why.
    pub reason: Reason,
    /// The frame that the client would get back.
    pub reply: Option<Vec<u8>>,
}

impl Explainer {
    /// Asks this program, and the responder about what the gate gives to it.
    pub fn new(program: impl ExplainProgram + 'static, rehearse: Rehearse) -> Self {
        Self { program: Box::new(program), rehearse }
    }

    /// What would be done with a frame that comes in by this interface.
    pub fn explain(&self, frame: &[u8], ifindex: u32) -> Result<Explained> {
        let Ran { value, frame: left } = self.program.run(frame, ifindex)?;
        let reason = reason(value)?;
        let verdict = match value & 0xff {
            XDP_PASS => Outcome::Passed,
            XDP_TX => Outcome::Answered,
            XDP_REDIRECT => Outcome::Redirected,
            XDP_DROP | XDP_ABORTED => Outcome::Dropped,
            other => bail!("the loaded gate gave the XDP action {other}, which there is not: restart portald"),
        };
        let reply = match verdict {
            Outcome::Answered => Some(left),
            Outcome::Redirected => (self.rehearse)(frame, ifindex),
            Outcome::Passed | Outcome::Dropped => None,
        };
        Ok(Explained { verdict, reason, reply })
    }

    /// What would be done with a frame that goes to a guest.
    pub fn explain_out(&self, frame: &[u8], departing: Departing) -> Result<Explained> {
        const PASSES: u32 = 0;
        const IS_HELD: u32 = 1;
        const DROPPED: u32 = 2;
        let value = self.program.run_out(frame, departing)?;
        let verdict = match value & 0xff {
            PASSES => Outcome::Passed,
            // The daemon gets it, learns from it and sends it on.
            IS_HELD => Outcome::Redirected,
            DROPPED => Outcome::Dropped,
            other => bail!("the loaded meter gave the action {other}, which there is not: restart portald"),
        };
        Ok(Explained { verdict, reason: reason(value)?, reply: None })
    }
}

/// The reason in what a program says.
fn reason(value: u32) -> Result<Reason> {
    Reason::try_from(value >> 8).map_err(|unknown| {
        anyhow!("the loaded gate gave the reason {}, which this portald does not know: restart it", unknown.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Says(u32);

    impl ExplainProgram for Says {
        fn run(&self, frame: &[u8], _: u32) -> Result<Ran> {
            Ok(Ran { value: self.0, frame: frame.iter().rev().copied().collect() })
        }

        fn run_out(&self, _: &[u8], _: Departing) -> Result<u32> {
            Ok(self.0)
        }
    }

    fn explain(value: u32) -> Result<Explained> {
        Explainer::new(Says(value), Box::new(|frame, ifindex| (ifindex == 7).then(|| [frame, b"!"].concat())))
            .explain(b"abc", 7)
    }

    #[test]
    fn a_programs_word_becomes_a_verdict_with_its_reason_and_reply() {
        let say = |action: u32, reason: Reason| action | (reason as u32) << 8;
        let table = [
            (XDP_PASS, Reason::Dns, Outcome::Passed, None),
            (XDP_TX, Reason::HttpHandshake, Outcome::Answered, Some(b"cba".to_vec())),
            (XDP_REDIRECT, Reason::HttpRequest, Outcome::Redirected, Some(b"abc!".to_vec())),
            (XDP_DROP, Reason::Fragment, Outcome::Dropped, None),
            (XDP_ABORTED, Reason::ConfigMissing, Outcome::Dropped, None),
        ];
        for (action, reason, verdict, reply) in table {
            assert_eq!(explain(say(action, reason)).unwrap(), Explained { verdict, reason, reply }, "{action}");
        }
        for unknown in [say(9, Reason::Dns), XDP_DROP] {
            assert!(explain(unknown).unwrap_err().to_string().contains("restart"));
        }
    }

    #[test]
    fn a_classifiers_word_becomes_a_verdict_with_its_reason() {
        let table = [
            (0, Reason::PortalService, Outcome::Passed),
            (1, Reason::Dns, Outcome::Redirected),
            (2, Reason::ToStranger, Outcome::Dropped),
        ];
        for (action, reason, verdict) in table {
            let explainer = Explainer::new(Says(action | (reason as u32) << 8), Box::new(|_, _| None));
            let said = explainer.explain_out(b"abc", Departing { ifindex: 7, forwarded: true }).unwrap();
            assert_eq!(said, Explained { verdict, reason, reply: None }, "{action}");
        }
    }

    #[test]
    fn the_context_is_an_xdp_md_of_the_whole_frame() {
        let words: Vec<u32> = context(60, 7).chunks(4).map(|c| u32::from_ne_bytes(c.try_into().unwrap())).collect();
        assert_eq!(words, [0, 60, 0, 7, 0, 0]);
    }
}
