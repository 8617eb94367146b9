//! One page for all who wait for it.

use std::time::Instant;

use axum::body::Bytes;
use tokio::sync::Mutex;

/// The page written last. Writing one costs thousands of system calls, so however many ask at once,
/// one is written at a time, and it answers all who asked before it was begun: nobody gets a page
/// that is older than the question, and nobody waits for more than two.
#[derive(Default)]
pub(super) struct SharedPage {
    last: Mutex<Option<(Instant, Bytes)>>,
}

impl SharedPage {
    /// A page that was begun at `asked_at` or later, by `write` if nobody else wrote one.
    pub(super) async fn begun_after(
        &self,
        asked_at: Instant,
        write: impl Future<Output = Result<Bytes, String>>,
    ) -> Result<Bytes, String> {
        let mut last = self.last.lock().await;
        if let Some((begun_at, page)) = &*last
            && *begun_at >= asked_at
        {
            return Ok(page.clone());
        }
        let begun_at = Instant::now();
        let page = write.await?;
        *last = Some((begun_at, page.clone()));
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::future::join_all;
    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn a_crowd_is_answered_by_two_pages_and_a_later_question_by_a_new_one() {
        let shared = SharedPage::default();
        let written = Cell::new(0);
        let ask = || async {
            let asked_at = Instant::now();
            let write = async {
                written.set(written.get() + 1);
                let page = written.get().to_string();
                yield_now().await;
                Ok(Bytes::from(page))
            };
            shared.begun_after(asked_at, write).await.unwrap()
        };
        let mut pages = join_all((0..500).map(|_| ask())).await;
        assert_eq!(pages.remove(0), "1", "the first to ask gets the first page");
        assert!(
            pages.iter().all(|page| page == "2"),
            "those who came meanwhile share the next"
        );
        assert_eq!(ask().await, "3");
    }
}
