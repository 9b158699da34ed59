// Mocha's spec reporter, closed by one plain line that any tool can read: "N passed, N failed, N skipped".
const Mocha = require('mocha');

const { EVENT_RUN_END, EVENT_TEST_PASS, EVENT_TEST_FAIL, EVENT_TEST_PENDING } = Mocha.Runner.constants;

class SummaryReporter extends Mocha.reporters.Spec {
  constructor(runner, options) {
    super(runner, options);
    const count = { passed: 0, failed: 0, skipped: 0 };
    runner.on(EVENT_TEST_PASS, () => count.passed++);
    runner.on(EVENT_TEST_FAIL, () => count.failed++);
    runner.on(EVENT_TEST_PENDING, () => count.skipped++);
    runner.once(EVENT_RUN_END, () => {
      console.log(`${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped`);
    });
  }
}

module.exports = SummaryReporter;
