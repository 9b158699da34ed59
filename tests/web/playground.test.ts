/**
 * The example page in a real browser, used as a person would, by keyboard and at the size of a phone too. With the variable
 * SCREENSHOTS, pictures are written to that folder, to be looked at.
 */

import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Page } from 'playwright-core';
import { type Browser, launch, missingBrowser, serve, type Site } from './browser.js';

const PLAYGROUND = resolve('examples/playground');
const SCREENSHOTS = process.env['SCREENSHOTS'];

async function picture(page: Page, name: string): Promise<void> {
  if (SCREENSHOTS === undefined) return;
  mkdirSync(SCREENSHOTS, { recursive: true });
  await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), fullPage: true });
}

/** Waits until the page says something, wrong or right, that matches. */
async function says(page: Page, id: string, pattern: RegExp): Promise<string> {
  const line = page.locator(`#${id}`);
  for (;;) {
    const text = (await line.textContent()) ?? '';
    if (pattern.test(text)) return text;
    if (await line.evaluate(({ classList }) => classList.contains('error')))
      throw new Error(`the page says: ${text}`);
    await new Promise((done) => setTimeout(done, 200));
  }
}

if (missingBrowser !== undefined) describe.skip(`playground (${missingBrowser})`, () => undefined);
else
  describe('playground', function () {
    this.timeout(240_000);
    let site: Site | undefined;
    let browser: Browser | undefined;
    let page: Page;
    const requests: string[] = [];
    const errors: string[] = [];

    before(async () => {
      execFileSync(process.execPath, [
        'node_modules/vite/bin/vite.js',
        'build',
        PLAYGROUND,
        '--logLevel',
        'error',
      ]);
      site = await serve(join(PLAYGROUND, 'out'));
      browser = await launch();
      page = await browser.context.newPage();
      await page.setViewportSize({ width: 1200, height: 900 });
      page.on('request', (request) => requests.push(request.url()));
      page.on('pageerror', (error) => errors.push(error.message));
      await page.goto(`${site.url}/index.html`);
      await says(page, 'device', /^(GPU|No WebGPU)/);
    });
    after(async () => {
      await browser?.close();
      site?.close();
    });

    it('shows the attention sites of a shipped model', async () => {
      await page.getByRole('button', { name: 'Character model, softmax' }).click();
      assert.match(await says(page, 'model-status', /can be converted/), /4 of 4 attention sites/);
      assert.equal(await page.getByRole('row').count(), 5);
    });

    it('converts it and runs both models', async () => {
      await page.getByRole('button', { name: 'Convert', exact: true }).click();
      await says(page, 'convert-status', /4 sites replaced, 0 left, in \d+ ms\.$/);
      await page.getByLabel('seq').fill('32');
      await page.getByRole('button', { name: 'Run side by side' }).click();
      await says(page, 'run-status', /^Done/);
      const text = (await page.locator('#results').textContent()) ?? '';
      const [, difference, largest] = /At most ([\d.e+-]+), where the largest output is ([\d.e+-]+)/.exec(
        text,
      )!;
      assert.ok(Number(difference) < 0.05 * Number(largest), text);
    });

    it('writes text with both', async () => {
      await page.getByRole('button', { name: 'Write' }).click();
      await page.waitForFunction(`document.getElementById('converted-text').textContent.length > 45`);
      await page.getByRole('button', { name: 'Stop' }).click();
      await says(page, 'write-status', /^(Both wrote|The texts part)/);
      await picture(page, 'desktop');
    });

    it('fits a phone', async () => {
      await page.setViewportSize({ width: 390, height: 844 });
      const overflow = await page.evaluate(
        'document.documentElement.scrollWidth - document.documentElement.clientWidth',
      );
      assert.equal(overflow, 0);
      await picture(page, 'phone');
      await page.emulateMedia({ colorScheme: 'dark' });
      await picture(page, 'phone-dark');
      await page.emulateMedia({ colorScheme: 'light' });
    });

    it('can be used by keyboard, and names its controls', async () => {
      await page.locator('body').click({ position: { x: 1, y: 1 } });
      const reached: string[] = [];
      for (let presses = 0; presses < 20; presses++) {
        await page.keyboard.press('Tab');
        reached.push(
          await page.evaluate(
            `document.activeElement.id || document.activeElement.dataset.sample || document.activeElement.name || ''`,
          ),
        );
      }
      for (const wanted of [
        'file',
        'characters-softmax',
        'characters-sigmoid',
        'mode',
        'convert',
        'run',
        'prompt',
        'write',
      ])
        assert.ok(reached.includes(wanted), `${wanted} is not reached by Tab: ${reached.join()}`);
      const nameless = await page.evaluate(
        `[...document.querySelectorAll('button, a[href], input, textarea')].filter((e) => !e.textContent.trim() && !e.labels?.length && !e.ariaLabel).length`,
      );
      assert.equal(nameless, 0);
    });

    it('tells what is wrong with a file that is no model', async () => {
      await page
        .locator('#file')
        .setInputFiles({ name: 'broken.onnx', mimeType: '', buffer: Buffer.from([1, 2, 3]) });
      const line = page.locator('#model-status.error');
      await line.waitFor();
      assert.notEqual(await line.textContent(), '');
      assert.equal(await page.locator('#convert').isDisabled(), true);
    });

    it('asks nobody else for anything', () => {
      assert.deepEqual(
        requests.filter(
          (url) => !url.startsWith(site!.url) && !url.startsWith('data:') && !url.startsWith('blob:'),
        ),
        [],
      );
      assert.deepEqual(errors, []);
    });
  });
