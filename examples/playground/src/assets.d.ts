/** Files that the bundler turns into URLs. */
declare module '*?url' {
  const url: string;
  export { url as default };
}
