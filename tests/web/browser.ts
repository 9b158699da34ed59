/**
 * A real Chromium with a software WebGPU adapter, and a page that holds what the tests of this folder need: onnxruntime-web,
 * this package and named scenarios. Time limits are mocha's, in Node: a frozen page has no timers.
 */

import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { extname, join, normalize, resolve } from 'node:path';
import { build } from 'esbuild';
import { type BrowserContext, chromium, type Page } from 'playwright-core';

export const CHROMIUM = process.env['CHROMIUM'] ?? '/usr/bin/chromium';

/** The reason why the browser tests cannot run, if so. */
export const missingBrowser: string | undefined = existsSync(CHROMIUM)
  ? undefined
  : `no browser at ${CHROMIUM}; install Debian's chromium or set CHROMIUM`;

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--enable-unsafe-webgpu',
  '--use-webgpu-adapter=swiftshader',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

const MEDIA_TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.mjs': 'text/javascript',
  '.css': 'text/css',
  '.wasm': 'application/wasm',
  '.svg': 'image/svg+xml',
  '.json': 'application/json',
};

export interface Site {
  readonly url: string;
  close(): void;
}

/** Serves files of a folder, and the given ones from memory; nothing outside the folder. */
export async function serve(
  folder: string,
  files: Readonly<Record<string, string | Uint8Array>> = {},
): Promise<Site> {
  const root = resolve(folder);
  const server: Server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url ?? '/', 'http://localhost').pathname);
    const inMemory = files[path];
    const file = join(root, normalize(path));
    const isFile = file.startsWith(root) && existsSync(file) && extname(file) !== '';
    if (inMemory === undefined && !isFile) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, { 'content-type': MEDIA_TYPES[extname(path)] ?? 'application/octet-stream' });
    response.end(inMemory ?? readFileSync(file));
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, close: () => server.close() };
}

export interface Browser {
  readonly context: BrowserContext;
  close(): Promise<void>;
}

/** @param flags more command-line switches */
export async function launch(flags: readonly string[] = []): Promise<Browser> {
  const profile = mkdtempSync(join(tmpdir(), 'chromium-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: CHROMIUM,
    args: [...FLAGS, ...flags],
    ignoreDefaultArgs: ['--disable-gpu'],
  });
  return {
    context,
    close: async () => {
      await context.close();
      rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** Bundles a TypeScript entry of this folder for a page. */
export async function bundle(entry: string): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [resolve('tests/web', entry)],
    bundle: true,
    format: 'esm',
    target: 'es2022',
    write: false,
    logLevel: 'error',
    conditions: ['onnxruntime-web-use-extern-wasm'],
  });
  return outputFiles[0]!.text;
}

export interface TestPage {
  /** Runs a scenario of tests/web/page in the page; what the page throws is thrown here. */
  run<Result>(scenario: string, argument?: unknown): Promise<Result>;
  readonly console: readonly string[];
  close(): Promise<void>;
}

/** A browser with a fresh page of scenarios. */
export async function openTestPage(flags: readonly string[] = []): Promise<TestPage> {
  const site = await serve('node_modules/onnxruntime-web/dist', {
    '/index.html': '<!doctype html><title>tests</title><script type="module" src="/page.js"></script>',
    '/page.js': await bundle('page/index.ts'),
  });
  const browser = await launch(flags);
  const page: Page = await browser.context.newPage();
  const lines: string[] = [];
  page.on('console', (message) => lines.push(message.text()));
  page.on('pageerror', (error) => lines.push(`page error: ${error.message}`));
  await page.goto(`${site.url}/index.html`);
  await page.waitForFunction('globalThis.runScenario !== undefined');
  return {
    run: async <Result>(scenario: string, argument: unknown = null) =>
      (await page.evaluate(
        `runScenario(${JSON.stringify(scenario)}, ${JSON.stringify(argument)})`,
      )) as Result,
    console: lines,
    close: async () => {
      await browser.close();
      site.close();
    },
  };
}
