/** The whole conformance table on the WGSL kernels in a real browser. */

import { CASES } from '../conformance/cases.js';
import { missingBrowser, openTestPage, type TestPage } from './browser.js';
import type { CaseResult } from './page/conformance.js';

if (missingBrowser !== undefined)
  describe.skip(`conformance: WGSL in Chromium (${missingBrowser})`, () => undefined);
else
  describe('conformance: WGSL in Chromium', function () {
    this.timeout(60_000);
    let page: TestPage;
    before(async () => (page = await openTestPage()));
    after(() => page.close());

    for (const { name } of CASES)
      it(name, async function () {
        const { unsupported, mistakes } = await page.run<CaseResult>('conformance', name);
        if (unsupported !== undefined) {
          this.test!.title += ` (${unsupported})`;
          this.skip();
        }
        if (mistakes.length > 0) throw new Error(mistakes.join('\n'));
      });
  });
