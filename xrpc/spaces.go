package xrpc

import (
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kithnet/kith/space"
)

// createSpace takes both spellings: HappyView's mintPolicy, appAccess
// {"type"}, managingAppDid, displayName, description, config; atproto's policy
// and appAccess {"$type"}; and, for either, the node's own name, relays,
// keyPolicy, history, attribution, pq, selfWrite, maxEpochLagSeconds.
func createSpace(c *call) (any, error) {
	c.d = spaceDialect(c)
	n := NewSpace{}
	var err error
	if n.Type, err = typeAndKey(c, &n.Key); err != nil {
		return nil, err
	}
	patch, err := readPatch(c.body)
	if err != nil {
		return nil, err
	}
	if n.Policy, err = patch.patched(space.DefaultPolicy()); err != nil {
		return nil, err
	}
	if n.Name, _, err = c.body.text("name"); err != nil {
		return nil, err
	}
	if n.Relays, err = c.body.texts("relays", mostRelays); err != nil {
		return nil, err
	}
	if n.OwnDID, _, err = c.body.boolean("ownDid"); err != nil {
		return nil, err
	}
	if n.OwnDID && c.s.Transfers == nil {
		return nil, faultf(space.ErrUnsupported, "ownDid: a space with a DID of its own is not supported here")
	}
	info, err := c.s.Spaces.CreateSpace(c.ctx(), n)
	if err != nil {
		return nil, err
	}
	return made{spaceAnswer{URI: c.d.spaceURI(info.ID), SpaceID: hex.EncodeToString(info.SpaceID[:]), Space: c.spaceObject(info)}}, nil
}

// spaceDialect is HappyView if the body has its fields, atproto if it has
// atproto's.
func spaceDialect(c *call) Dialect {
	if strings.HasPrefix(c.nsid, "dev.happyview.") {
		return HappyView
	}
	for _, f := range []string{"mintPolicy", "displayName", "description", "managingAppDid", "config", "membershipPublic", "recordsPublic"} {
		if c.body.has(f) {
			return HappyView
		}
	}
	access, _, _ := c.body.object("appAccess")
	switch {
	case access.has("type"):
		return HappyView
	case access.has("$type"), c.body.has("policy"):
		return ATProto
	}
	return c.standard
}

// typeAndKey reads type and skey. Without skey the node draws one; an empty
// one is an error, as it is in HappyView.
func typeAndKey(c *call, key *space.RecordKey) (space.NSID, error) {
	typ, _, err := c.body.text("type")
	if err != nil {
		return "", err
	}
	skey, named, err := c.body.text("skey")
	if err != nil {
		return "", err
	}
	if typ == "" || named && skey == "" {
		return "", faultf(errRequest, "type and skey are required")
	}
	if named {
		if *key, err = parseIn("skey", skey, space.ParseRecordKey); err != nil {
			return "", err
		}
	}
	return parseIn("type", typ, space.ParseNSID)
}

// spaceAnswer is what createSpace and getSpace answer: the union of both
// dialects.
type spaceAnswer struct {
	URI       string        `json:"uri"`
	SpaceID   string        `json:"spaceId"`
	Policy    *policyUnion  `json:"policy,omitempty"`
	AppAccess *accessUnion  `json:"appAccess,omitempty"`
	Space     spaceObject   `json:"space"`
	Config    *configObject `json:"config,omitempty"`
}

type policyUnion struct {
	Type        string `json:"$type"`
	ManagingApp string `json:"managingApp,omitempty"`
}

type accessUnion struct {
	Type    string    `json:"$type"`
	Plain   string    `json:"type"`
	Allowed *[]string `json:"allowed,omitempty"`
}

// configObject is HappyView's management view.
type configObject struct {
	Type        string      `json:"$type"`
	MintPolicy  string      `json:"mintPolicy"`
	Policy      policyUnion `json:"policy"`
	AppAccess   accessUnion `json:"appAccess"`
	ManagingApp *string     `json:"managingApp"`
	KeyPolicy   string      `json:"keyPolicy"`
	History     string      `json:"history"`
}

// spaceObject is HappyView's Space in both spellings, and what the node knows
// beside.
type spaceObject struct {
	ID            string       `json:"id"`
	SpaceID       string       `json:"spaceId"`
	DID           space.DID    `json:"did"`
	AuthorityDID  space.DID    `json:"authority_did"`
	AuthorityDID2 space.DID    `json:"authorityDid"`
	CreatorDID    space.DID    `json:"creator_did"`
	CreatorDID2   space.DID    `json:"creatorDid"`
	Type          space.NSID   `json:"type"`
	Key           string       `json:"skey"`
	DisplayName   *string      `json:"display_name"`
	DisplayName2  *string      `json:"displayName"`
	Description   *string      `json:"description"`
	Mint          string       `json:"mint_policy"`
	Mint2         string       `json:"mintPolicy"`
	Access        accessUnion  `json:"app_access"`
	Access2       accessUnion  `json:"appAccess"`
	Managing      *string      `json:"managing_app_did"`
	Managing2     *string      `json:"managingAppDid"`
	Config        any          `json:"config"`
	Revision      *string      `json:"revision"`
	CreatedAt     string       `json:"created_at"`
	CreatedAt2    string       `json:"createdAt"`
	UpdatedAt     string       `json:"updated_at"`
	UpdatedAt2    string       `json:"updatedAt"`
	URI           string       `json:"uri"`
	Name          string       `json:"name,omitempty"`
	Role          string       `json:"role"`
	Epoch         uint64       `json:"epoch"`
	Policy        space.Policy `json:"policy"`
	ChangedMs     int64        `json:"policyChangedMs,omitempty"`
	Frozen        bool         `json:"frozen,omitempty"`
	Unverified    bool         `json:"unverifiedHead,omitempty"`
}

func (c *call) spaceObject(i SpaceInfo) spaceObject {
	p := i.Policy
	o := spaceObject{
		ID: hex.EncodeToString(i.SpaceID[:]), DID: i.ID.Authority, AuthorityDID: i.Authority, CreatorDID: i.Creator,
		Type: i.ID.Type, Key: string(i.ID.Key), Description: orNull(p.Description), DisplayName: orNull(p.DisplayName),
		Mint: p.Mint, Access: accessOf(p), Managing: orNull(p.ManagingApp), Config: freeConfig(p.Config),
		CreatedAt: timeText(i.CreatedMs * 1000),
		URI:       c.d.spaceURI(i.ID), Name: i.Name, Role: i.Level.String(), Epoch: i.Epoch, Policy: p,
		Frozen: i.Frozen, Unverified: i.UnverifiedHead, ChangedMs: i.UpdatedMs,
	}
	switch {
	case c.anonymous:
		o.Name, o.Role = "", space.LevelNone.String()
	case !c.isOwner(): // the petname is the owner's
		o.Name, o.Role = "", c.level.String()
	}
	updated := max(i.CreatedMs, i.UpdatedMs) * 1000
	if i.Rev != 0 && c.level >= space.LevelRead {
		o.Revision = new(i.Rev.String())
		updated = max(updated, i.Rev.Micros())
	}
	o.UpdatedAt = timeText(updated)
	o.SpaceID, o.AuthorityDID2, o.CreatorDID2, o.DisplayName2 = o.ID, o.AuthorityDID, o.CreatorDID, o.DisplayName
	o.Mint2, o.Access2, o.Managing2, o.CreatedAt2, o.UpdatedAt2 = o.Mint, o.Access, o.Managing, o.CreatedAt, o.UpdatedAt
	return o
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// timeText is RFC 3339 in UTC of microseconds since the Unix epoch.
func timeText(micros int64) string { return time.UnixMicro(micros).UTC().Format(time.RFC3339Nano) }

// freeConfig is the config as JSON, with the two flags that HappyView knows in
// both spellings.
func freeConfig(r space.Record) any {
	text := ""
	for _, f := range flagFields {
		if f.flag != FlagNoRevocation {
			text = appendField(text, quote(f.field), strconv.FormatBool(flagOf(r, f.flag)))
		}
	}
	if extra, err := configText(r, FlagMembershipPublic, FlagRecordsPublic); err == nil && extra != "" {
		text += "," + extra
	}
	return rawJSON("{" + text + "}")
}

func accessOf(p space.Policy) accessUnion {
	if p.AppAccess == space.AccessAllowList {
		allowed := slices.Clone(p.Allow)
		if allowed == nil {
			allowed = []string{}
		}
		return accessUnion{"com.atproto.simplespace.defs#allowList", p.AppAccess, &allowed}
	}
	return accessUnion{"com.atproto.simplespace.defs#open", space.AccessOpen, nil}
}

func policyOf(p space.Policy) policyUnion {
	variant := map[string]string{space.MintMemberList: "memberListPolicy", space.MintPublic: "publicPolicy", space.MintManaging: "managingAppPolicy"}
	return policyUnion{"com.atproto.simplespace.defs#" + variant[p.Mint], p.ManagingApp}
}

func showSpace(c *call) (any, error) {
	id, err := c.spaceID()
	if err != nil {
		return nil, err
	}
	info, err := c.s.Spaces.Space(c.ctx(), id)
	if err != nil {
		return nil, err
	}
	config := configOf(info.Policy)
	return spaceAnswer{
		URI: c.d.spaceURI(id), SpaceID: hex.EncodeToString(info.SpaceID[:]),
		Policy: &config.Policy, AppAccess: &config.AppAccess, Space: c.spaceObject(info), Config: &config,
	}, nil
}

// configOf is HappyView's management view of a policy.
func configOf(p space.Policy) configObject {
	return configObject{
		Type:       "com.atproto.simplespace.defs#spaceConfig",
		MintPolicy: p.Mint, Policy: policyOf(p), AppAccess: accessOf(p), ManagingApp: orNull(p.ManagingApp),
		KeyPolicy: p.KeyPolicy, History: p.History,
	}
}

type listedSpace struct {
	URI     string      `json:"uri"`
	IsOwner bool        `json:"isOwner"`
	Space   spaceObject `json:"space"`
}

type spacesAnswer struct {
	Spaces []listedSpace `json:"spaces"`
	Cursor string        `json:"cursor,omitempty"`
}

// listSpaces lists the caller's spaces by URI. did means in HappyView "shared
// with this member", in atproto "of this authority".
func listSpaces(c *call) (any, error) {
	limit, err := c.limit(50, 100)
	if err != nil {
		return nil, err
	}
	typ, _, err := optional(c.in, "type", space.ParseNSID)
	if err != nil {
		return nil, err
	}
	did, err := c.did("did")
	if err != nil {
		return nil, err
	}
	all, err := c.s.Spaces.Spaces(c.ctx())
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(slices.Clone(all), func(i SpaceInfo) bool {
		return typ != "" && i.ID.Type != typ || c.d == ATProto && did != "" && i.Authority != did
	})
	if all, err = c.seen(all); err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b SpaceInfo) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	if c.d == HappyView && did != "" && did != c.caller.DID && hasRoster(c.s) {
		if all, err = c.sharedWith(did, all); err != nil {
			return nil, err
		}
	}
	all, next, err := page(c, all, limit, func(i SpaceInfo) string { return i.ID.String() })
	if err != nil {
		return nil, err
	}
	if did == "" {
		did = c.caller.DID
	}
	out := spacesAnswer{Spaces: make([]listedSpace, len(all)), Cursor: next}
	for i, info := range all {
		if !c.caller.full {
			c.level, _ = c.levelIn(info.ID, nil) // what is gone by now shows least
		}
		out.Spaces[i] = listedSpace{c.d.spaceURI(info.ID), info.Authority == did, c.spaceObject(info)}
	}
	return out, nil
}

// seen keeps the spaces that the caller belongs to.
func (c *call) seen(all []SpaceInfo) ([]SpaceInfo, error) {
	if c.caller.full {
		return all, nil
	}
	var failed error
	all = slices.DeleteFunc(all, func(i SpaceInfo) bool {
		_, err := c.levelIn(i.ID, nil)
		if err != nil && !errors.Is(err, space.ErrSpaceNotFound) {
			failed = err
		}
		return err != nil
	})
	return all, failed
}

// sharedWith keeps the spaces that did is a member of too: nobody learns of
// another's memberships what the roster does not tell them.
func (c *call) sharedWith(did space.DID, all []SpaceInfo) ([]SpaceInfo, error) {
	shared := all[:0]
	for _, i := range all {
		members, err := c.s.Roster.Members(c.ctx(), i.ID)
		switch {
		case errors.Is(err, space.ErrForbidden):
			continue // the owner may not see this roster
		case err != nil:
			return nil, err
		}
		if slices.ContainsFunc(members, func(m Member) bool { return m.DID == did }) {
			shared = append(shared, i)
		}
	}
	return shared, nil
}
