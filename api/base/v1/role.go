package basev1

// roleNames are what roles are called, the least first. No other place names them.
var roleNames = [...]string{Role_ROLE_VIEWER: "viewer", Role_ROLE_OPERATOR: "operator", Role_ROLE_OWNER: "owner"}

// Name returns "viewer", "operator" or "owner"; "unspecified" for any other value.
func (r Role) Name() string {
	if r <= Role_ROLE_UNSPECIFIED || int(r) >= len(roleNames) {
		return "unspecified"
	}
	return roleNames[r]
}

// RoleNames returns the names of all roles, the least first.
func RoleNames() []string { return append([]string(nil), roleNames[Role_ROLE_VIEWER:]...) }

// ParseRole reads the name of a role; false: it is none.
func ParseRole(name string) (Role, bool) {
	for role := Role_ROLE_VIEWER; int(role) < len(roleNames); role++ {
		if name == roleNames[role] {
			return role, true
		}
	}
	return Role_ROLE_UNSPECIFIED, false
}
