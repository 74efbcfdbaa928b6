package xrpc

import "net/http"

// handler answers one method. The value it returns is the JSON body; made
// wraps a body whose method creates something.
type handler func(*call) (any, error)

// made is the body of an answer that created something: 201 in HappyView.
type made struct{ body any }

// method is a row of the table. A nil handler is a method that is known and
// not built.
type method struct {
	verb   string
	handle handler
}

const (
	get  = http.MethodGet
	post = http.MethodPost
)

// methods is the one table of what is answered under /xrpc/.
var methods = map[string]method{
	"com.atproto.simplespace.createSpace":     {post, createSpace},
	"com.atproto.simplespace.getSpace":        {get, showSpace},
	"com.atproto.simplespace.listMembers":     {get, built(hasRoster, listMembers)},
	"com.atproto.simplespace.updateSpace":     {post, built(hasAdmin, updateSpace)},
	"com.atproto.simplespace.deleteSpace":     {post, built(hasAdmin, deleteSpace)},
	"com.atproto.simplespace.getConfig":       {get, getConfig},
	"com.atproto.simplespace.updateConfig":    {post, built(hasAdmin, updateConfig)},
	"com.atproto.simplespace.addMember":       {post, built(hasRoster, addMember)},
	"com.atproto.simplespace.removeMember":    {post, built(hasRoster, removeMember)},
	"com.atproto.simplespace.checkUserAccess": {get, nil},

	"com.atproto.space.getSpace":           {get, showSpace},
	"com.atproto.space.listSpaces":         {get, listSpaces},
	"com.atproto.space.createRecord":       {post, createRecord},
	"com.atproto.space.putRecord":          {post, putRecord},
	"com.atproto.space.getRecord":          {get, showRecord},
	"com.atproto.space.listRecords":        {get, listRecords},
	"com.atproto.space.deleteRecord":       {post, deleteRecord},
	"com.atproto.space.applyWrites":        {post, applyWrites},
	"com.atproto.space.getRepoState":       {get, showRepoState},
	"com.atproto.space.listRepoOps":        {get, listRepoOps},
	"com.atproto.space.listRepos":          {get, listRepos},
	"com.atproto.space.getLatestCommit":    {get, nil},
	"com.atproto.space.getRepo":            {get, nil},
	"com.atproto.space.getBlob":            {get, nil},
	"com.atproto.space.listBlobs":          {get, nil},
	"com.atproto.space.getDelegationToken": {get, nil},
	"com.atproto.space.getSpaceCredential": {post, nil},
	"com.atproto.space.registerNotify":     {post, nil},
	"com.atproto.space.unregisterNotify":   {post, nil},
	"com.atproto.space.notifyWrite":        {post, nil},
	"com.atproto.space.notifySpaceDeleted": {post, nil},
	"com.atproto.repo.uploadBlob":          {post, nil},

	"dev.happyview.space.createInvite": {post, built(hasInvites, createInvite)},
	"dev.happyview.space.acceptInvite": {post, built(hasInvites, acceptInvite)},
	"dev.happyview.space.redeemInvite": {post, built(hasInvites, acceptInvite)},
	"dev.happyview.space.revokeInvite": {post, built(hasInvites, revokeInvite)},
	"dev.happyview.space.listInvites":  {get, built(hasInvites, listInvites)},

	// HappyView's older names of the methods above.
	"dev.happyview.space.createSpace":        {post, createSpace},
	"dev.happyview.space.getSpace":           {get, showSpace},
	"dev.happyview.space.listSpaces":         {get, listSpaces},
	"dev.happyview.space.createRecord":       {post, createRecord},
	"dev.happyview.space.putRecord":          {post, putRecord},
	"dev.happyview.space.getRecord":          {get, showRecord},
	"dev.happyview.space.listRecords":        {get, listRecords},
	"dev.happyview.space.deleteRecord":       {post, deleteRecord},
	"dev.happyview.space.applyWrites":        {post, applyWrites},
	"dev.happyview.space.listMembers":        {get, built(hasRoster, listMembers)},
	"dev.happyview.space.updateSpace":        {post, built(hasAdmin, updateSpace)},
	"dev.happyview.space.deleteSpace":        {post, built(hasAdmin, deleteSpace)},
	"dev.happyview.space.addMember":          {post, built(hasRoster, addMember)},
	"dev.happyview.space.removeMember":       {post, built(hasRoster, removeMember)},
	"dev.happyview.space.getMemberGrant":     {get, nil},
	"dev.happyview.space.getSpaceCredential": {post, nil},
	"dev.happyview.space.getBlob":            {get, nil},
	"dev.happyview.space.create":             {post, createSpace},
	"dev.happyview.space.get":                {get, showSpace},
	"dev.happyview.space.list":               {get, listSpaces},
	"dev.happyview.space.update":             {post, built(hasAdmin, updateSpace)},
	"dev.happyview.space.delete":             {post, built(hasAdmin, deleteSpace)},
	"dev.happyview.space.invite.create":      {post, built(hasInvites, createInvite)},
	"dev.happyview.space.invite.redeem":      {post, built(hasInvites, acceptInvite)},
	"dev.happyview.space.invite.revoke":      {post, built(hasInvites, revokeInvite)},
	"dev.happyview.space.invite.list":        {get, built(hasInvites, listInvites)},

	"dev.kith.space.join":      {post, built(hasInvites, joinSpace)},
	"dev.kith.space.leave":     {post, built(hasExits, leaveSpace)},
	"dev.kith.space.rotate":    {post, built(hasKeys, rotate)},
	"dev.kith.space.status":    {get, spaceStatus},
	"dev.kith.space.subscribe": {get, nil},
	"dev.kith.space.forget":    {post, built(hasExits, forgetSpace)},

	"dev.kith.space.setLevel":         {post, built(hasRoster, setLevel)},
	"dev.kith.space.setKeeper":        {post, built(hasKeepers, setKeeper)},
	"dev.kith.space.removeKeeper":     {post, built(hasKeepers, removeKeeper)},
	"dev.kith.space.appointSequencer": {post, built(hasKeepers, appointSequencer)},
	"dev.kith.space.listRequests":     {get, built(hasApprovals, listRequests)},
	"dev.kith.space.approveRequest":   {post, built(hasApprovals, approveRequest)},
	"dev.kith.space.denyRequest":      {post, built(hasApprovals, denyRequest)},
	"dev.kith.space.transfer":         {post, built(hasTransfers, transferSpace)},
	"dev.kith.space.acceptTransfer":   {post, built(hasTransfers, acceptTransfer)},

	"dev.kith.device.list":    {get, built(hasDevices, listDevices)},
	"dev.kith.device.approve": {post, built(hasDevices, approveDevice)},
	"dev.kith.device.revoke":  {post, built(hasDevices, revokeDevice)},

	"dev.kith.node.status":  {get, showStatus},
	"dev.kith.node.peers":   {get, listPeers},
	"dev.kith.node.connect": {post, connectPeer},
	"dev.kith.node.events":  {get, nil},
	"dev.kith.node.backup":  {post, built(hasBackups, backUp)},

	"dev.kith.server.createSession": {post, nil},
	"dev.kith.server.deleteSession": {post, nil},
	"dev.kith.server.getSession":    {get, nil},
	"dev.kith.server.createTicket":  {post, nil},
	"dev.kith.identity.get":         {get, nil},

	"dev.kith.kv.set":       {post, nil},
	"dev.kith.kv.get":       {get, nil},
	"dev.kith.kv.delete":    {post, nil},
	"dev.kith.kv.list":      {get, nil},
	"dev.kith.kv.subscribe": {get, nil},

	"dev.kith.channel.create":    {post, nil},
	"dev.kith.channel.join":      {post, nil},
	"dev.kith.channel.list":      {get, nil},
	"dev.kith.channel.resolve":   {get, nil},
	"dev.kith.channel.send":      {post, nil},
	"dev.kith.channel.edit":      {post, nil},
	"dev.kith.channel.delete":    {post, nil},
	"dev.kith.channel.history":   {get, nil},
	"dev.kith.channel.subscribe": {get, nil},
	"dev.kith.channel.invite":    {post, nil},
	"dev.kith.channel.members":   {get, nil},

	"dev.kith.message.publish":   {post, nil},
	"dev.kith.message.subscribe": {get, nil},
	"dev.kith.message.send":      {post, nil},

	"dev.kith.file.put":    {post, nil},
	"dev.kith.file.get":    {get, nil},
	"dev.kith.file.list":   {get, nil},
	"dev.kith.file.delete": {post, nil},

	"dev.kith.relay.describe":           {get, nil},
	"dev.kith.relay.lease":              {post, nil},
	"dev.kith.relay.putEnvelopes":       {post, nil},
	"dev.kith.relay.getEnvelopes":       {get, nil},
	"dev.kith.relay.subscribeEnvelopes": {get, nil},
	"dev.kith.relay.digest":             {get, nil},
	"dev.kith.relay.putShard":           {post, nil},
	"dev.kith.relay.getShard":           {get, nil},
}
