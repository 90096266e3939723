// The SDK's only import in a page. The package is CommonJS, which no browser loads by itself; retries of HTTP
// requests are not what is tested.

export class AbortError extends Error {}

export default (attempt) => attempt(1);
