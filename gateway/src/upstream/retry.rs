//! Whether a request may be sent again. Pure: the time comes from the caller.

use std::time::Instant;

use http::Method;

use super::UpstreamError;
use crate::config;

/// How an attempt ended that may be worth another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miss {
    /// No connection: nothing of the request has left.
    Unsent,
    /// The connection ended before a response, and sending again cannot do anything twice.
    Lost,
    /// No response within `retries.try-timeout`.
    Late,
    /// A response with a status of `retries.statuses`.
    Status,
}

impl Miss {
    /// What an error means for a request that came back whole.
    pub fn of(error: &UpstreamError) -> Self {
        match error {
            UpstreamError::Protocol(..) | UpstreamError::ResponseTimeout(_) => Self::Lost,
            _ => Self::Unsent,
        }
    }
}

/// Whether another attempt may follow `attempts` of them. What never left may always go elsewhere;
/// everything else draws on the budget.
pub fn is_worth_it(
    rules: &config::Retries,
    budget: &mut Budget,
    miss: Miss,
    attempts: u32,
    now: Instant,
) -> bool {
    attempts <= rules.attempts && (miss == Miss::Unsent || budget.take(rules, now))
}

/// Whether a request may be kept to be sent again although it was sent: only one that may be repeated
/// (RFC 9110, section 9.2.2), and only where the file asks for such attempts.
pub fn is_kept(rules: &config::Retries, method: &Method, has_body: bool) -> bool {
    let is_wanted = !rules.statuses.is_empty() || rules.try_timeout.is_some();
    is_wanted && rules.attempts > 0 && !has_body && method.is_idempotent()
}

/// How many attempts may follow on others: a share of all requests, and a few per second so that little
/// traffic can have them too. It bounds what retries add to servers that are in trouble already.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Hundredths of a retry.
    left: f64,
    at: Instant,
}

impl Budget {
    /// A budget with its few.
    pub fn new(now: Instant) -> Self {
        Self { left: FREE_PER_SECOND * 100.0, at: now }
    }

    /// A request came.
    pub fn earn(&mut self, rules: &config::Retries) {
        self.left = (self.left + f64::from(rules.budget_percent)).min(LEFT_MAX);
    }

    fn take(&mut self, rules: &config::Retries, now: Instant) -> bool {
        if rules.budget_percent == 0 {
            return false;
        }
        let past = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + past * FREE_PER_SECOND * 100.0).min(LEFT_MAX);
        let is_enough = self.left >= 100.0;
        if is_enough {
            self.left -= 100.0;
        }
        is_enough
    }
}

const FREE_PER_SECOND: f64 = 3.0;
const LEFT_MAX: f64 = 10_000.0;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rules() -> config::Retries {
        config::Retries { attempts: 2, budget_percent: 20, statuses: Vec::new(), try_timeout: None }
    }

    #[test]
    fn an_outage_does_not_multiply_the_load() {
        let (rules, start) = (rules(), Instant::now());
        let mut budget = Budget::new(start);
        let mut retries = 0;
        // 1000 requests a second for a minute, every attempt fails.
        for n in 0..60_000u64 {
            let now = start + Duration::from_millis(n);
            budget.earn(&rules);
            let mut attempts = 1;
            while is_worth_it(&rules, &mut budget, Miss::Lost, attempts, now) {
                attempts += 1;
                retries += 1;
            }
        }
        assert!((12_000..12_400).contains(&retries), "{retries}");
    }

    #[test]
    fn little_traffic_has_a_few() {
        let (rules, now) = (rules(), Instant::now());
        let mut budget = Budget::new(now);
        budget.earn(&rules);
        let taken = (0..10).filter(|_| budget.take(&rules, now)).count();
        assert_eq!(taken, 3);
        assert!(budget.take(&rules, now + Duration::from_secs(1)));
    }

    #[test]
    fn what_never_left_needs_no_budget_but_counts() {
        let (mut rules, now) = (rules(), Instant::now());
        rules.budget_percent = 0;
        let mut budget = Budget::new(now);
        assert!(is_worth_it(&rules, &mut budget, Miss::Unsent, 1, now));
        assert!(is_worth_it(&rules, &mut budget, Miss::Unsent, 2, now));
        assert!(!is_worth_it(&rules, &mut budget, Miss::Unsent, 3, now));
        assert!(!is_worth_it(&rules, &mut budget, Miss::Late, 1, now));
    }

    #[test]
    fn only_what_may_be_repeated_is_kept() {
        let mut rules = rules();
        assert!(!is_kept(&rules, &Method::GET, false));
        rules.statuses.push(503);
        for (method, has_body, is_good) in [
            (Method::GET, false, true),
            (Method::GET, true, false),
            (Method::DELETE, false, true),
            (Method::POST, false, false),
            (Method::PATCH, false, false),
        ] {
            assert_eq!(is_kept(&rules, &method, has_body), is_good, "{method} {has_body}");
        }
    }
}
