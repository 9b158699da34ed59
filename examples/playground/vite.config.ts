/** The page is plain static files: `vite build` makes a folder that any web server, or none but a local one, can serve. */

import { defineConfig } from 'vite';

export default defineConfig({
  root: import.meta.dirname,
  base: './',
  build: {
    outDir: 'out',
    emptyOutDir: true,
    target: 'es2022',
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 2000,
  },
  // Pre-bundling would lose the path from the runtime's module to its WebAssembly file.
  optimizeDeps: { exclude: ['onnxruntime-web', 'onnxruntime-web/webgpu'] },
  assetsInclude: ['**/*.onnx'],
});
