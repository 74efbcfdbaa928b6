package xrpc

import (
	"net/http"

	"github.com/kithnet/kith/space"
)

// handler answers one method. The value it returns is the JSON body; made
// wraps a body whose method creates something, and a raw answers by itself.
type handler func(*call) (any, error)

// made is the body of an answer that created something: 201 in HappyView.
type made struct{ body any }

// raw is an answer that writes itself: bytes, a stream, a socket. It is called
// once, after everything that can be refused was refused. What it returns can
// only be logged, and breaks the connection off, unless it is a notSent.
type raw func(http.ResponseWriter, *http.Request) error

// notSent is an error of a raw that has sent nothing and set no header: it is
// answered as that of a handler.
type notSent struct{ error }

func (e notSent) Unwrap() error { return e.error }

// method is a row of the table.
type method struct {
	verb   string
	who    access
	handle handler // nil: known, and not built

	// needs says whether the Server has what the method asks; nil: it has.
	needs func(*Server) bool
	// open says which spaces let everybody in; nil: none.
	open func(space.Policy) bool
	// body: the request's body is not JSON and the handler reads it from
	// call.r.Body. The parameters stand in the query then.
	body bool
	// socket: a WebSocket, where a ticket may stand in for the token.
	socket bool
	// byRelay: Server.Relay answers, and asks for a ticket of the topic in the
	// place of a token.
	byRelay bool
}

const (
	get  = http.MethodGet
	post = http.MethodPost
)

// methods is the one table of what is answered under /xrpc/; aliases are
// further names of its rows.
var methods = map[string]method{
	"com.atproto.simplespace.createSpace":     {verb: post, who: forFounder, handle: createSpace},
	"com.atproto.simplespace.getSpace":        {verb: get, who: forMember, handle: showSpace, open: space.Policy.MembershipPublic},
	"com.atproto.simplespace.listMembers":     {verb: get, who: forReader, handle: listMembers, needs: hasRoster, open: space.Policy.MembershipPublic},
	"com.atproto.simplespace.updateSpace":     {verb: post, who: forAuthority, handle: updateSpace, needs: hasAdmin},
	"com.atproto.simplespace.deleteSpace":     {verb: post, who: forAuthority, handle: deleteSpace, needs: hasAdmin},
	"com.atproto.simplespace.getConfig":       {verb: get, who: forAuthority, handle: getConfig},
	"com.atproto.simplespace.updateConfig":    {verb: post, who: forAuthority, handle: updateConfig, needs: hasAdmin},
	"com.atproto.simplespace.addMember":       {verb: post, who: forAuthority, handle: addMember, needs: hasRoster},
	"com.atproto.simplespace.removeMember":    {verb: post, who: forAuthority, handle: removeMember, needs: hasRoster},
	"com.atproto.simplespace.checkUserAccess": {verb: get},

	"com.atproto.space.listSpaces":      {verb: get, who: forCaller, handle: listSpaces},
	"com.atproto.space.createRecord":    {verb: post, who: forWriter, handle: createRecord},
	"com.atproto.space.putRecord":       {verb: post, who: forWriter, handle: putRecord},
	"com.atproto.space.deleteRecord":    {verb: post, who: forWriter, handle: deleteRecord},
	"com.atproto.space.applyWrites":     {verb: post, who: forWriter, handle: applyWrites},
	"com.atproto.space.getRecord":       {verb: get, who: forMember, handle: showRecord, open: space.Policy.RecordsPublic},
	"com.atproto.space.listRecords":     {verb: get, who: forMember, handle: listRecords, open: space.Policy.RecordsPublic},
	"com.atproto.space.getRepoState":    {verb: get, who: forMember, handle: showRepoState, open: space.Policy.RecordsPublic},
	"com.atproto.space.listRepoOps":     {verb: get, who: forMember, handle: listRepoOps, open: space.Policy.RecordsPublic},
	"com.atproto.space.listRepos":       {verb: get, who: forReader, handle: listRepos, open: space.Policy.RecordsPublic},
	"com.atproto.space.getLatestCommit": {verb: get, who: forMember, handle: showCommit, needs: hasSnapshots, open: space.Policy.RecordsPublic},
	"com.atproto.space.getRepo":         {verb: get, who: forMember, handle: sendRepo, needs: hasSnapshots, open: space.Policy.RecordsPublic},
	"com.atproto.space.getBlob":         {verb: get, who: forMember, handle: sendBlob, needs: hasBlobs, open: space.Policy.RecordsPublic},
	"com.atproto.space.listBlobs":       {verb: get, who: forMember, handle: listBlobs, needs: hasBlobs, open: space.Policy.RecordsPublic},
	"com.atproto.repo.uploadBlob":       {verb: post, who: forUploader, handle: uploadBlob, needs: hasBlobs, body: true},

	"com.atproto.space.getDelegationToken": {verb: get},
	"com.atproto.space.getSpaceCredential": {verb: post},
	"com.atproto.space.registerNotify":     {verb: post},
	"com.atproto.space.unregisterNotify":   {verb: post},
	"com.atproto.space.notifyWrite":        {verb: post},
	"com.atproto.space.notifySpaceDeleted": {verb: post},

	"dev.happyview.space.createInvite": {verb: post, who: forAuthority, handle: createInvite, needs: hasInvites},
	"dev.happyview.space.acceptInvite": {verb: post, who: forFounder, handle: acceptInvite, needs: hasInvites},
	"dev.happyview.space.revokeInvite": {verb: post, who: forAuthority, handle: revokeInvite, needs: hasInvites},
	"dev.happyview.space.listInvites":  {verb: get, who: forAuthority, handle: listInvites, needs: hasInvites},

	"dev.kith.space.join":       {verb: post, who: forFounder, handle: joinSpace, needs: hasInvites},
	"dev.kith.space.leave":      {verb: post, who: forFounder, handle: leaveSpace, needs: hasExits},
	"dev.kith.space.forget":     {verb: post, who: forFounder, handle: forgetSpace, needs: hasExits},
	"dev.kith.space.setPetname": {verb: post, who: forFounder, handle: setPetname, needs: hasPetnames},
	"dev.kith.space.rotate":     {verb: post, who: forAuthority, handle: rotate, needs: hasKeys},
	"dev.kith.space.status":     {verb: get, who: forNode, handle: spaceStatus},
	"dev.kith.space.subscribe":  {verb: get, who: forMember, handle: subscribe, needs: hasEvents, socket: true},

	"dev.kith.space.setLevel":         {verb: post, who: forAuthority, handle: setLevel, needs: hasRoster},
	"dev.kith.space.setKeeper":        {verb: post, who: forAuthority, handle: setKeeper, needs: hasKeepers},
	"dev.kith.space.removeKeeper":     {verb: post, who: forAuthority, handle: removeKeeper, needs: hasKeepers},
	"dev.kith.space.appointSequencer": {verb: post, who: forAuthority, handle: appointSequencer, needs: hasKeepers},
	"dev.kith.space.listRequests":     {verb: get, who: forAuthority, handle: listRequests, needs: hasApprovals},
	"dev.kith.space.approveRequest":   {verb: post, who: forAuthority, handle: approveRequest, needs: hasApprovals},
	"dev.kith.space.denyRequest":      {verb: post, who: forAuthority, handle: denyRequest, needs: hasApprovals},
	"dev.kith.space.transfer":         {verb: post, who: forAuthority, handle: transferSpace, needs: hasTransfers},
	"dev.kith.space.acceptTransfer":   {verb: post, who: forFounder, handle: acceptTransfer, needs: hasTransfers},
	"dev.kith.space.leaseRelay":       {verb: post, who: forOwner, handle: leaseRelay, needs: hasRelays},

	"dev.kith.device.list":    {verb: get, who: forOwner, handle: listDevices, needs: hasDevices},
	"dev.kith.device.approve": {verb: post, who: forOwner, handle: approveDevice, needs: hasDevices},
	"dev.kith.device.revoke":  {verb: post, who: forOwner, handle: revokeDevice, needs: hasDevices},

	"dev.kith.node.status":     {verb: get, who: forNode, handle: showStatus},
	"dev.kith.node.peers":      {verb: get, who: forNode, handle: listPeers},
	"dev.kith.node.connect":    {verb: post, who: forNode, handle: connectPeer},
	"dev.kith.node.disconnect": {verb: post, who: forNode, handle: disconnectPeer},
	"dev.kith.node.events":     {verb: get, who: forNode, socket: true},
	"dev.kith.node.relay":      {verb: get, who: forOwner, handle: relayRole, needs: hasRelays},
	"dev.kith.node.backup":     {verb: post, who: forOwner, handle: backUp, needs: hasBackups},

	"dev.kith.server.createSession": {verb: post},
	"dev.kith.server.deleteSession": {verb: post},
	"dev.kith.server.getSession":    {verb: get, who: forCaller, handle: showSession},
	"dev.kith.server.createTicket":  {verb: post, who: forMember, handle: createTicket, needs: hasEvents},
	"dev.kith.token.create":         {verb: post, who: forOwner, handle: createToken, needs: hasTokens},
	"dev.kith.token.list":           {verb: get, who: forOwner, handle: listTokens, needs: hasTokens},
	"dev.kith.token.revoke":         {verb: post, who: forOwner, handle: revokeToken, needs: hasTokens},
	"dev.kith.identity.get":         {verb: get},

	"dev.kith.kv.set":       {verb: post},
	"dev.kith.kv.get":       {verb: get},
	"dev.kith.kv.delete":    {verb: post},
	"dev.kith.kv.list":      {verb: get},
	"dev.kith.kv.subscribe": {verb: get},

	"dev.kith.channel.create":    {verb: post},
	"dev.kith.channel.join":      {verb: post},
	"dev.kith.channel.list":      {verb: get},
	"dev.kith.channel.resolve":   {verb: get},
	"dev.kith.channel.send":      {verb: post},
	"dev.kith.channel.edit":      {verb: post},
	"dev.kith.channel.delete":    {verb: post},
	"dev.kith.channel.history":   {verb: get},
	"dev.kith.channel.subscribe": {verb: get},
	"dev.kith.channel.invite":    {verb: post},
	"dev.kith.channel.members":   {verb: get},

	"dev.kith.message.publish":   {verb: post},
	"dev.kith.message.subscribe": {verb: get},
	"dev.kith.message.send":      {verb: post},

	"dev.kith.file.put":    {verb: post},
	"dev.kith.file.get":    {verb: get},
	"dev.kith.file.list":   {verb: get},
	"dev.kith.file.delete": {verb: post},

	"dev.kith.relay.describe":           {verb: get, byRelay: true},
	"dev.kith.relay.lease":              {verb: post, byRelay: true},
	"dev.kith.relay.putEnvelopes":       {verb: post, byRelay: true},
	"dev.kith.relay.getEnvelopes":       {verb: get, byRelay: true},
	"dev.kith.relay.subscribeEnvelopes": {verb: get, byRelay: true},
	"dev.kith.relay.digest":             {verb: get, byRelay: true},
	"dev.kith.relay.putShard":           {verb: post, byRelay: true},
	"dev.kith.relay.getShard":           {verb: get, byRelay: true},
}

// aliases are the older names of HappyView's, in its dialect whatever the URI,
// and one method that both contracts have under two names.
var aliases = map[string]string{
	"com.atproto.space.getSpace": "com.atproto.simplespace.getSpace",

	"dev.happyview.space.createSpace":        "com.atproto.simplespace.createSpace",
	"dev.happyview.space.getSpace":           "com.atproto.simplespace.getSpace",
	"dev.happyview.space.listSpaces":         "com.atproto.space.listSpaces",
	"dev.happyview.space.updateSpace":        "com.atproto.simplespace.updateSpace",
	"dev.happyview.space.deleteSpace":        "com.atproto.simplespace.deleteSpace",
	"dev.happyview.space.addMember":          "com.atproto.simplespace.addMember",
	"dev.happyview.space.removeMember":       "com.atproto.simplespace.removeMember",
	"dev.happyview.space.listMembers":        "com.atproto.simplespace.listMembers",
	"dev.happyview.space.createRecord":       "com.atproto.space.createRecord",
	"dev.happyview.space.putRecord":          "com.atproto.space.putRecord",
	"dev.happyview.space.getRecord":          "com.atproto.space.getRecord",
	"dev.happyview.space.listRecords":        "com.atproto.space.listRecords",
	"dev.happyview.space.deleteRecord":       "com.atproto.space.deleteRecord",
	"dev.happyview.space.applyWrites":        "com.atproto.space.applyWrites",
	"dev.happyview.space.getBlob":            "com.atproto.space.getBlob",
	"dev.happyview.space.getMemberGrant":     "com.atproto.space.getDelegationToken",
	"dev.happyview.space.getSpaceCredential": "com.atproto.space.getSpaceCredential",
	"dev.happyview.space.redeemInvite":       "dev.happyview.space.acceptInvite",

	"dev.happyview.space.create":        "com.atproto.simplespace.createSpace",
	"dev.happyview.space.get":           "com.atproto.simplespace.getSpace",
	"dev.happyview.space.list":          "com.atproto.space.listSpaces",
	"dev.happyview.space.update":        "com.atproto.simplespace.updateSpace",
	"dev.happyview.space.delete":        "com.atproto.simplespace.deleteSpace",
	"dev.happyview.space.invite.create": "dev.happyview.space.createInvite",
	"dev.happyview.space.invite.redeem": "dev.happyview.space.acceptInvite",
	"dev.happyview.space.invite.revoke": "dev.happyview.space.revokeInvite",
	"dev.happyview.space.invite.list":   "dev.happyview.space.listInvites",
}

// methodOf is the row of an NSID or of an alias.
func methodOf(nsid string) (method, bool) {
	if canonical, ok := aliases[nsid]; ok {
		nsid = canonical
	}
	m, ok := methods[nsid]
	return m, ok
}
