/** Finds this package's own files, from TypeScript sources in a checkout and from dist/ in an installed package. */

import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const PACKAGE_NAME = 'ort-sigmoid-attention';

/** The folder with this package's package.json. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  for (;;) {
    const manifest = join(folder, 'package.json');
    if (existsSync(manifest)) {
      const { name } = JSON.parse(readFileSync(manifest, 'utf8')) as { name?: unknown };
      if (name === PACKAGE_NAME) return folder;
    }
    const parent = dirname(folder);
    if (parent === folder) throw new Error(`The package folder of ${PACKAGE_NAME} was not found.`);
    folder = parent;
  }
}

/** The operator library and the Node addon, which lie side by side. */
export interface NativeFiles {
  readonly library: string;
  readonly addon: string;
}

const LIBRARY_NAMES: Readonly<Record<string, string>> = {
  linux: 'libort_sigmoid_attention.so',
  darwin: 'libort_sigmoid_attention.dylib',
  win32: 'ort_sigmoid_attention.dll',
};

/**
 * The native build: build/native of a checkout comes before the prebuilt files of an installed package.
 * Throws an Error that says what to do when there is neither.
 */
export function nativeFiles(): NativeFiles {
  const root = packageRoot();
  const platform = `${process.platform}-${process.arch}`;
  const libraryName = LIBRARY_NAMES[process.platform];
  if (libraryName !== undefined) {
    for (const folder of ['build/native', `prebuilds/${platform}`]) {
      const library = join(root, folder, libraryName);
      const addon = join(root, folder, 'ort_sigmoid_attention_node.node');
      if (existsSync(library) && existsSync(addon)) return { library, addon };
    }
  }
  throw new Error(
    `${PACKAGE_NAME} has no native library for ${platform}; ` +
      `build it with 'node scripts/setup.mjs native' in ${root} (needs CMake and a C++17 compiler).`,
  );
}

/**
 * Absolute path of the custom-operator library, for `register_custom_ops_library` in other languages.
 * Throws an Error that says what to do when it has not been built.
 */
export function libraryPath(): string {
  return nativeFiles().library;
}
