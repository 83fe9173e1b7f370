// An identity provider for the tests: npm's oidc-provider, with the accounts and clients that are told it as JSON.
//   node identity.mjs INDEX_OF_OIDC_PROVIDER '{"port": 4000, "groups": {"anna": ["staff"]}, "clients": [...]}'
import { pathToFileURL } from 'node:url';

const { default: Provider } = await import(pathToFileURL(process.argv[2]));
const told = JSON.parse(process.argv[3]);

const provider = new Provider(`http://localhost:${told.port}`, {
  clients: told.clients,
  claims: { openid: ['sub'], profile: ['preferred_username'], groups: ['groups'] },
  scopes: ['openid', 'profile', 'groups'],
  conformIdTokenClaims: told.conform, // true: name and groups stand at the UserInfo endpoint alone
  jwks: { keys: told.keys },
  pkce: { required: () => true },
  cookies: { keys: ['for the tests alone'] },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, preferred_username: id, groups: told.groups[id] }),
  }),
});
provider.listen(told.port, '127.0.0.1', () => console.log('listening'));
